"""One process that listens to many databases.

python -m benches.many [DATABASES] measures ours alone.
"""
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from examples.client import TrytonClient
from tests.support import wait_until
from tests.support.postgresql import PostgreSQL
from tests.support.server import BusServer, TrytondServer, create_tryton

from . import serve, sides
from .report import Row

TITLE = "(h) one process that listens to many databases"
COUNTS = [1, 50, 300]
# Seconds of idleness that are measured
IDLE = 20
FIGURES = [
    ("connections", 'count'), ("threads", 'count'), ("descriptors", 'count'),
    ("memory", 'MB'), ("idle CPU", 'ms/s'), ("a message in one", 'ms')]
TRYTON = 'bench_many'


def run(_, quick):
    counts, seconds = (COUNTS[:2], 4) if quick else (COUNTS, IDLE)
    # Stock on trytond 8.0 and later takes two connections for each.
    with site(max(counts), 1000) as (postgresql, sections, names):
        for count in counts:
            databases = names[:count]
            stock, ours = (
                measure_class(name, postgresql, databases, seconds)
                for name in sides.SIDES)
            server = measure_server(postgresql, sections, databases, seconds)
            for text, figures in [("class", ours), ("trytond-bus", server)]:
                for index, (what, unit) in enumerate(FIGURES):
                    yield Row(
                        'h', "%d databases, %s, %s" % (count, text, what),
                        unit, stock[index], figures[index],
                        # A few connections do not belong to listeners.
                        most=count + 10 if what == "connections" else
                        30 if what == "threads" else None,
                        statistic='median')


def main(count=1000):
    "Measure ours alone, because stock needs twice the connections"
    with site(count, count + 100) as (postgresql, sections, names):
        for text, figures in [
                ("class", measure_class('ours', postgresql, names, IDLE)),
                ("trytond-bus", measure_server(
                        postgresql, sections, names, IDLE))]:
            for (what, unit), samples in zip(FIGURES, figures, strict=True):
                print("%d databases, %s, %s: %.1f %s" % (
                        count, text, what, statistics.median(samples), unit),
                    flush=True)


@contextmanager
def site(count, max_connections):
    "A PostgreSQL, its configuration, and its databases, the first a Tryton"
    with PostgreSQL(max_connections=max_connections) as postgresql:
        sections = {
            'database': {'uri': postgresql.uri},
            'bus': {'class': None, 'long_polling_timeout': 600},
            }
        postgresql.create_database(TRYTON)
        create_tryton(sections, TRYTON)
        names = [TRYTON, *(f'{TRYTON}_{n}' for n in range(1, count))]
        for name in names[1:]:
            postgresql.create_database(name)
        yield postgresql, sections, names


def measure_class(name, postgresql, databases, seconds):
    side = sides.Side(name, postgresql, TRYTON)
    try:
        pid = side(start, databases)
        return [
            *idle(postgresql, pid, seconds),
            side(measure_message, 5)]
    finally:
        side.close()


def start(_, databases):
    "Listen to the databases; return the process id"
    from trytond import config
    from trytond.bus import Bus
    config.set('bus', 'long_polling_timeout', '1')
    with ThreadPoolExecutor(50) as executor:
        list(executor.map(
                lambda database: Bus.subscribe(database, ['nothing']),
                databases))
    for database in databases:
        wait_until(lambda: is_heard(database), 120)  # noqa: B023
    config.set('bus', 'long_polling_timeout', '600')
    return os.getpid()


def is_heard(database):
    "Whether the process receives a message that another connection sends"
    from trytond import config
    uri = config.get('database', 'uri')
    with serve.psycopg.connect(
            f'{uri}/{database}', autocommit=True) as connection:
        connection.execute("SELECT pg_notify('bus', %s)", (
                '{"channel":"x","message":{"message_id":"x"}}',))
    return sides.retained(database)


def measure_message(database, rounds):
    "Milliseconds from the commit to the return of the thread that waits"
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    times = []
    for number in range(rounds):
        channel, returns = f'many:{number}', []

        def client(channel=channel, returns=returns):
            Bus.subscribe(database, {channel})
            returns.append(time.perf_counter())

        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        wait_until(
            lambda channel=channel: sides.waiting(database, channel) == 1)
        with Transaction().start(database, 0) as transaction:
            Bus.publish(channel, {'type': 'x'})
            begin = time.perf_counter()
            transaction.commit()
        thread.join(60)
        times.append((returns[0] - begin) * 1e3)
    return times


def measure_server(postgresql, sections, databases, seconds):
    with tempfile.TemporaryDirectory() as directory, \
            TrytondServer(directory, sections, [TRYTON]) as trytond, \
            BusServer(directory, sections, databases) as server:
        for database in databases:
            server.listened(database)
        figures = idle(postgresql, server.process.pid, seconds)
        client = TrytonClient(trytond.url, TRYTON, bus=server.url)
        with ThreadPoolExecutor(1) as executor:
            return [
                *figures, [
                    one_message(postgresql, server, client, executor)
                    for _ in range(5)]]


def one_message(postgresql, server, client, executor):
    poll = executor.submit(client.poll)
    wait_until(lambda: server.metric('polls_waiting') == 1)
    with serve.psycopg.connect(
            f'{postgresql.uri}/{TRYTON}', autocommit=True) as connection:
        begin = time.perf_counter()
        serve.publish(connection, client.channel)
        poll.result(60)
        return (time.perf_counter() - begin) * 1e3


def idle(postgresql, pid, seconds):
    "The samples of the resources of the idle process"
    # The work of the start has ended by then.
    time.sleep(seconds / 2)
    before = computed(pid)
    time.sleep(seconds)
    spent = (computed(pid) - before) / seconds
    with open(f'/proc/{pid}/statm') as file:
        resident = int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE')
    return [[figure] for figure in [
            connections(postgresql, pid),
            len(os.listdir(f'/proc/{pid}/task')),
            len(os.listdir(f'/proc/{pid}/fd')),
            resident / 1e6, spent * 1e3]]


def computed(pid):
    "The seconds of CPU that a process has used"
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / serve.TICKS


def connections(postgresql, pid):
    "How many sessions of PostgreSQL the process has"
    ports = {
        int(row[0]) for row in postgresql.execute(
            "SELECT client_port FROM pg_stat_activity "
            "WHERE client_port > 0 AND pid <> pg_backend_pid()")}
    inodes = set()
    for number in os.listdir(f'/proc/{pid}/fd'):
        try:
            target = os.readlink(f'/proc/{pid}/fd/{number}')
        except OSError:
            continue
        if target.startswith('socket:['):
            inodes.add(target[8:-1])
    with open(f'/proc/{pid}/net/tcp') as file:
        lines = [line.split() for line in file][1:]
    return sum(
        fields[9] in inodes and int(fields[1].split(':')[1], 16) in ports
        for fields in lines)


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
