"""Measures the cost of the access check of a chat: python -m benches.chat

It compares a poll with one such chat, whose answer is cached or asked for each
time, with the same poll without it, in one run. It also compares the memory of
trytond-bus with the modules ir and res loaded with that without them.
"""
import contextlib
import http.client
import json
import statistics
import tempfile
from pathlib import Path

from tests.support.bus import Wire
from tests.support.client import TrytonClient
from tests.support.postgresql import PostgreSQL
from tests.support.server import BusServer, TrytondServer
from tests.support.template import create_on_postgresql

from .timing import per_call

ROUNDS = 15
DATABASE = 'tryton'
CHANNEL = 'bench:x'
# The seconds for which an answer is cached
REMEMBERED = {"remembered": 3600, "asked for": 0}


class Poller:
    "Polls over one connection, each answered at once from the history"

    def __init__(self, server, client):
        self._connection = http.client.HTTPConnection(
            '127.0.0.1', server.port)
        self._headers = client._headers

    def poll(self, chats):
        self._connection.request('POST', f'/{DATABASE}/bus', json.dumps({
                    'channels': [CHANNEL, *chats]}), self._headers)
        with self._connection.getresponse() as response:
            return json.load(response)['message']


def main():
    with PostgreSQL() as postgresql, \
            tempfile.TemporaryDirectory() as directory, \
            contextlib.ExitStack() as stack:
        create_on_postgresql(postgresql, DATABASE)
        wire = stack.enter_context(Wire(f'{postgresql.uri}/{DATABASE}'))

        def start(server, cache, check_access=True):
            # A log line for each poll would be measured as well.
            return stack.enter_context(server(Path(directory), {
                        'database': {'uri': postgresql.uri},
                        'bus': {
                            'long_polling_timeout': 1,
                            'session_cache': cache,
                            'check_access': check_access},
                        }, [DATABASE], verbose=False))

        login = start(TrytondServer, 30)
        client = TrytonClient(login.url, DATABASE)
        chats = {
            "one chat": ['chat:res.user,%d' % client.user_id],
            "250 chats": ['chat:res.user,%d' % id_ for id_ in range(1, 251)],
            }

        def poller(server):
            poller = Poller(server, client)
            while not poller.poll([]):
                wire.notify([('bus', json.dumps({
                                'channel': CHANNEL,
                                'message': {'message_id': 'x'}}))])
            return poller

        for server in [TrytondServer, BusServer]:
            for how, cache in REMEMBERED.items():
                asked = poller(start(server, cache))
                for text, names in chats.items():
                    print("%s, %s, %s: %s" % (
                            server.__name__, text, how, ratio(asked, names)))
        for text, check_access in [("without", False), ("with", True)]:
            server = start(BusServer, 30, check_access)
            poller(server).poll(chats["one chat"])
            print("BusServer %s the modules ir and res: %.1f MB" % (
                    text, resident(server.process.pid) / 1e6))


def ratio(poller, chats):
    "The ratio of a poll with these chats to one without, measured in turns"
    figures = [], []
    for _ in range(ROUNDS):
        for values, names in zip(figures, [[], chats], strict=True):
            assert poller.poll(names)
            values.append(per_call(lambda names=names: poller.poll(names)))
    without, with_ = [statistics.median(values) * 1e6 for values in figures]
    return "%.0f us against %.0f us, %.2f x" % (
        with_, without, with_ / without)


def resident(pid):
    with open(f'/proc/{pid}/status') as file:
        for line in file:
            if line.startswith('VmRSS:'):
                return int(line.split()[1]) * 1024
    raise ValueError("process %d has no memory" % pid)


if __name__ == '__main__':
    main()
