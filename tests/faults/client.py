"""Many clients that poll, as a program. Its argument is a file with the task
(see run.py).

Each client polls a random port with its last message, one poll at a time.
After an error it just polls again.
"""
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from support.client import TrytonClient

from .log import Log, rest


class Client:
    "Logs in, polls, and logs the messages"

    def __init__(self, task, id_, channels, log):
        self._id = id_
        self._channels = [f'client:{id_}', *channels]
        self._ports = task['ports']
        self._path = f'/{task["database"]}/bus'
        self._timeout = task['timeout']
        self._random = random.Random(f'{task["seed"]} {id_}')
        self._log = log
        self._task = task
        self._headers = TrytonClient(
            task['login'], task['database'], timeout=60)._headers
        self._last = None
        self._delay = task['delays'].get(id_, 0)
        # From time to time its last message is older than all retained ones.
        self._pause = min(2 * task['cache_timeout'], 4)

    def run(self):
        time.sleep(self._delay)
        self._log.write('start', client=self._id, channels=self._channels)
        failures = Counter()
        pause_at = time.monotonic() + self._random.expovariate(.1)
        while True:
            rest(self._task)
            try:
                answer = self.poll(self._random.choice(self._ports))
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
                failures[reason] += 1
                if failures[reason] in {1, 10, 100, 1000, 10_000}:
                    print(self._id, failures[reason], reason, flush=True)
                time.sleep(self._random.uniform(.05, .3))
            else:
                self.receive(answer)
            if self._last and time.monotonic() > pause_at:
                time.sleep(self._random.uniform(0, self._pause))
                pause_at = time.monotonic() + self._random.expovariate(.1)

    def poll(self, port):
        connection = http.client.HTTPConnection(
            '127.0.0.1', port, timeout=self._timeout)
        try:
            connection.request('POST', self._path, json.dumps({
                        'channels': self._channels,
                        'last_message': self._last,
                        }), self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"status {response.status} of {port}")
            return json.load(response)
        finally:
            connection.close()

    def receive(self, answer):
        if message := answer['message']:
            self._log.write(
                'received', client=self._id, tag=message['tag'],
                channel=answer['channel'], size=len(message['text']),
                id=message['message_id'], end=bool(message.get('end')))
            self._last = message['message_id']


def main(path):
    task = json.loads(Path(path).read_text())
    log = Log(task['received'])
    clients = [
        Client(task, id_, channels, log)
        for id_, channels in task['clients'].items()]
    for client in clients:
        threading.Thread(target=client.run).start()


if __name__ == '__main__':
    main(sys.argv[1])
