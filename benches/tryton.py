"""A real Tryton server for benches/load, told by its input like bus-server:
`python -m benches.tryton SERVER URI`.

It prints where it listens and its process, and publishes each line `channel
json` through PostgreSQL. `waiting` is answered with the number of polls (of
trytond once it has nothing to do), `cpu` with the seconds of CPU that
PostgreSQL has used.
"""
import os
import sys
import tempfile

import psycopg

from tests.support.server import BusServer, TrytondServer, create_tryton

from .serve import rest

# As benches/load names it
DATABASE = 'db'
# Each client of benches/load has its own session and user: their number, the
# first user, and the token
CLIENTS, USER = 10_000, 1000
TOKEN = '{:048x}'
TICKS = os.sysconf('SC_CLK_TCK')
OURS = 'trytond_fastbus.Bus'
# The class of the server, of the bus, and how trytond is to wait
SERVERS = {
    'stock': (TrytondServer, None, 'threaded'),
    'stock, coroutine': (TrytondServer, None, 'coroutine'),
    'fastbus': (TrytondServer, OURS, 'threaded'),
    'fastbus, coroutine': (TrytondServer, OURS, 'coroutine'),
    'trytond-bus': (BusServer, OURS, None),
    }


def create(postgresql):
    "Make the database with the sessions of all"
    postgresql.create_database(DATABASE)
    create_tryton({'database': {'uri': postgresql.uri}}, DATABASE)
    with connect(postgresql.uri) as connection:
        connection.cursor().executemany(
            "INSERT INTO ir_session (key, ip_address, create_uid, create_date)"
            " VALUES (%s, '127.0.0.1', %s, LOCALTIMESTAMP)", [
                (TOKEN.format(client), USER + client)
                for client in range(CLIENTS)])
        connection.execute("ANALYZE ir_session")


def connect(uri):
    return psycopg.connect(f'{uri}/{DATABASE}', autocommit=True)


def serve(name, uri):
    kind, bus, how = SERVERS[name]
    sections = {
        'database': {'uri': uri},
        'bus': {'class': bus, 'long_polling_timeout': 600},
        }
    # A log line for each poll would be measured as well.
    options = {'verbose': False}
    if how:
        options['kind'] = how
    with tempfile.TemporaryDirectory() as directory, \
            kind(directory, sections, [DATABASE], **options) as server, \
            connect(uri) as connection:
        print(f'127.0.0.1:{server.port}', server.process.pid, flush=True)
        for line in sys.stdin:
            command, _, message = line.strip().partition(' ')
            if message:
                connection.execute(
                    "SELECT pg_notify('bus', %s)", (
                        f'{{"channel":"{command}","message":{message}}}',))
            elif command == 'waiting':
                print(waiting(server), flush=True)
            elif command == 'cpu':
                print(used(connection), flush=True)
            else:
                break


def waiting(server):
    "How many polls the server has"
    if isinstance(server, BusServer):
        return int(server.metric('polls_waiting'))
    rest(server)
    return connected(server.port)


def used(connection):
    "The CPU of PostgreSQL in seconds, that of ended sessions included"
    parent = int(_stat(connection.info.backend_pid)[1])
    ticks = sum(map(int, _stat(parent)[11:15]))
    with open(f'/proc/{parent}/task/{parent}/children') as file:
        for child in file.read().split():
            try:
                ticks += sum(map(int, _stat(child)[11:13]))
            except OSError:
                # Its time counts for its parent now.
                pass
    return ticks / TICKS


def _stat(process):
    "The fields after the name, of which the second is the parent"
    with open(f'/proc/{process}/stat') as file:
        return file.read().rpartition(')')[2].split()


def connected(port):
    "How many connections a server on the port has"
    with open('/proc/net/tcp') as file:
        lines = [line.split() for line in file]
    return sum(
        address.endswith(f':{port:04X}') and state == '01'
        for _, address, _, state, *_ in lines[1:])


if __name__ == '__main__':
    serve(*sys.argv[1:])
