"""A leak in a server is reported. Memory that an allocator keeps is not."""
import os
import socket
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support import wait_until

from faults.account import COLLECTOR, check, take

pytestmark = pytest.mark.one_series

# Opens the number of connections in its input, drops the old ones unclosed,
# and prints a line when it is done.
CONNECTIONS = """
import sqlite3, sys
for line in sys.stdin:
    connections = [sqlite3.connect(sys.argv[1]) for _ in range(int(line))]
    for connection in connections:
        connection.execute('PRAGMA journal_mode = WAL')
        connection.execute('SELECT 1 FROM sqlite_master').fetchall()
    print(flush=True)
"""

# The test holds a connection to this port.
CONNECTION = """
import socket, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
sys.stdin.read()
"""

QUIET = {
    'kilobytes': 40_000, 'database connections': 3, 'descriptors': 12,
    'threads': 16, 'tasks': 5, 'connections': 0, 'polls_waiting': 0}


def run(**changes):
    "Check nine accounts, of which these values differ"
    return check('it', [
            QUIET | {name: values[number] for name, values in changes.items()}
            for number in range(9)])


def test_value_that_returns_to_its_level_is_silent():
    assert run(
        kilobytes=[40_000, 44_000, 47_000, 46_000, 45_000, 46_500, 47_500,
            46_900, 45_900],
        descriptors=[12, 12, 11, 12, 22, 12, 12, 12, 12]) == []
    # The pool was emptied just before a rest.
    assert run(**{'database connections': [5, 5, 7, 7, 1, 7, 7, 8, 7]}) == []


@pytest.mark.parametrize('name, values, violation', [
        ('kilobytes', range(40_000, 49_000, 1000),
            "The kilobytes of it grow with time: "),
        ('database connections', range(9),
            "The database connections of it grow with time: "),
        ('threads', [16] * 7 + [17] * 2,
            "The rests 8 and 9 found 17 threads instead of 16 in it."),
        ('polls_waiting', [1, 1] + [0] * 7,
            "The rests 1 and 2 found 1 polls_waiting instead of 0 in it."),
        ])
def test_value_that_stays_high_is_reported(name, values, violation):
    reported, = run(**{name: list(values)})
    assert reported.startswith(violation)


def test_connections_of_sqlite_are_those_that_are_in_use(tmp_path):
    file = tmp_path / 'it.sqlite'
    with subprocess.Popen(
            [sys.executable, '-c', CONNECTIONS, file], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, 'PYTHONPATH': str(COLLECTOR)}) as process:
        def account(number):
            process.stdin.write(f'{number}\n')
            process.stdin.flush()
            process.stdout.readline()
            wait_until(lambda: look()['database connections'] == number)
            return look()

        def look():
            return take(SimpleNamespace(process=process), set(), file)

        many, few = account(7), account(2)
        process.stdin.close()
    assert many['descriptors'] == few['descriptors'] == 3


def test_connection_that_was_reset_is_one_of_the_pool(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as listener, \
            subprocess.Popen(
                [sys.executable, '-c', CONNECTION,
                    str(listener.getsockname()[1])],
                stdin=subprocess.PIPE,
                env={**os.environ, 'PYTHONPATH': str(COLLECTOR)}) as process:
        def look():
            found = take(SimpleNamespace(process=process), set(), tmp_path)
            return found['database connections'], found['descriptors']

        peer, _ = listener.accept()
        assert look() == (0, 4)
        # Closed in this way, the connection is reset.
        peer.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        peer.close()
        wait_until(lambda: look() == (1, 3))
        process.stdin.close()
