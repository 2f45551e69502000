"""Clients that come and go, as a program. Its argument is a file with the task
(see world.py). They must leave nothing behind in a server."""
import base64
import http.client
import json
import random
import socket
import struct
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError

from support.client import TrytonClient

from .log import Log, rest

THREADS = 8
# The most seconds that a client stays, also in the middle of a request
STAY = 2
HEAD = (
    'POST {path} HTTP/1.1\r\nHost: bus\r\n'
    'Authorization: {authorization}\r\n')
JSON = 'Content-Type: application/json\r\n'
GARBAGE = [
    'GET / HTTP/1.1\r\nHost: bus\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
    'POST {path} HTTP/1.1\r\nHost: bus\r\n' + JSON + '\r\n',
    'X' * 20_000 + '\r\n\r\n',
    HEAD + 'X-Filler: ' + 'x' * 20_000 + '\r\n\r\n',
    HEAD + JSON + 'Content-Length: 1000000\r\n\r\n' + '[' * 1000,
    HEAD + JSON + 'Content-Length: 6\r\n\r\n[1, 2}',
    HEAD + JSON + 'Content-Length: 17\r\n\r\n{{"channels": [1]}',
    HEAD + JSON + 'Transfer-Encoding: chunked\r\n\r\nx\r\n',
    HEAD + 'Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}',
    ]


class Churn:
    "The clients of one thread, drawn from the seed"

    def __init__(self, task, name, authorization, log):
        self._task = task
        self._random = random.Random(f'{task["seed"]} churn {name}')
        self._path = f'/{task["database"]}/bus'
        self._authorization = authorization
        self._log = log

    def run(self):
        kinds = [
            self.newcomer, self.abandoned, self.half, self.garbage,
            self.stranger]
        weights = [30, 30, 15, 15, 10]
        if self._task['logins']:
            kinds.append(self.logout)
            weights.append(1)
        while True:
            rest(self._task)
            kind, = self._random.choices(kinds, weights)
            try:
                end = kind()
            except (OSError, http.client.HTTPException, ValueError) as error:
                end = type(error).__name__
            self._log.write(kind.__name__, end=end)
            time.sleep(self._random.expovariate(
                    self._task['churn'] / THREADS))

    def newcomer(self):
        "Polls once, and waits for the answer"
        return self.poll(self._authorization)

    def abandoned(self):
        "Disconnects while its poll waits, or when it begins"
        with self.connect() as connection:
            connection.sendall(self.request(self._authorization).encode())
            return self.leave(connection)

    def half(self):
        "Begins a request and sends no more"
        request = self.request(self._authorization)
        with self.connect() as connection:
            connection.sendall(
                request[:self._random.randrange(len(request))].encode())
            return self.leave(connection)

    def garbage(self):
        "Sends arbitrary bytes"
        request = self._random.choice(GARBAGE).format(
            path=self._path, authorization=self._authorization)
        with self.connect() as connection:
            connection.sendall(request.encode())
            with closing(http.client.HTTPResponse(connection)) as response:
                response.begin()
                return response.status

    def stranger(self):
        "Polls with a session that does not exist"
        session = f'admin:1:{self._random.getrandbits(256):x}'
        return self.poll(
            'Session ' + base64.b64encode(session.encode()).decode())

    def logout(self):
        "Polls with its own session, before and after a logout"
        client = TrytonClient(
            self._random.choice(self._task['logins']),
            self._task['database'], timeout=10)
        authorization = client._headers['Authorization']
        before = self.poll(authorization)
        try:
            client.rpc('common.db.logout')
        except HTTPError as error:
            error.close()
            raise
        return f'{before}, {self.poll(authorization)}'

    def connect(self):
        return socket.create_connection(
            ('127.0.0.1', self._random.choice(self._task['ports'])),
            self._task['timeout'])

    def request(self, authorization):
        body = json.dumps({
                'channels': [
                    f'client:{uuid.uuid4()}',
                    self._random.choice(self._task['channels'])],
                'last_message': self._random.choice([
                        None, str(uuid.uuid4())]),
                })
        head = HEAD.format(path=self._path, authorization=authorization)
        return f'{head}{JSON}Content-Length: {len(body)}\r\n\r\n{body}'

    def poll(self, authorization):
        with self.connect() as connection:
            connection.sendall(self.request(authorization).encode())
            with closing(http.client.HTTPResponse(connection)) as response:
                response.begin()
                response.read()
                return response.status

    def leave(self, connection):
        "Close, or reset, after some time"
        time.sleep(self._random.choice([0, self._random.uniform(0, STAY)]))
        if self._random.random() < .5:
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            return 'reset'
        return 'closed'


def main(path):
    task = json.loads(Path(path).read_text())
    log = Log(task['churned'])
    client = TrytonClient(task['login'], task['database'], timeout=60)
    for name in range(THREADS):
        churn = Churn(task, name, client._headers['Authorization'], log)
        threading.Thread(target=churn.run).start()


if __name__ == '__main__':
    main(sys.argv[1])
