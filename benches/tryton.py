"""A real Tryton server for benches/load, told by its input like bus-server:
`python -m benches.tryton SERVER URI`.

It prints where it listens and its process, publishes each line `channel json`
through PostgreSQL, and answers `waiting` with the number of polls once the
server has nothing to do.
"""
import sys
import tempfile

import psycopg

from tests.support.server import BusServer, TrytondServer, create_tryton

from .serve import rest

# As benches/load names it
DATABASE = 'db'
# The token and the user of the sessions of benches/load. Their logins differ,
# so that they are sessions of their own to trytond-bus, while trytond checks
# token, user and address only.
TOKEN, USER = '0123456789abcdef' * 3, 1
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
    "Make the database with the session of all"
    postgresql.create_database(DATABASE)
    create_tryton({'database': {'uri': postgresql.uri}}, DATABASE)
    with connect(postgresql.uri) as connection:
        connection.execute(
            "INSERT INTO ir_session (key, ip_address, create_uid, create_date)"
            " VALUES (%s, '127.0.0.1', %s, LOCALTIMESTAMP)", (TOKEN, USER))


def connect(uri):
    return psycopg.connect(f'{uri}/{DATABASE}', autocommit=True)


def serve(name, uri):
    kind, bus, waiting = SERVERS[name]
    sections = {
        'database': {'uri': uri},
        'bus': {'class': bus, 'long_polling_timeout': 600},
        }
    # A line for each poll would be a part of what is measured.
    options = {'verbose': False}
    if waiting:
        options['kind'] = waiting
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
                rest(server)
                print(connected(server.port), flush=True)
            else:
                break


def connected(port):
    "How many connections a server on the port has"
    with open('/proc/net/tcp') as file:
        lines = [line.split() for line in file]
    return sum(
        address.endswith(f':{port:04X}') and state == '01'
        for _, address, _, state, *_ in lines[1:])


if __name__ == '__main__':
    serve(*sys.argv[1:])
