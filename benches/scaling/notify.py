"""The cost of a NOTIFY for PostgreSQL, by the number of listeners: python -m
benches.scaling.notify"""
import argparse
import selectors
import time
from contextlib import ExitStack

import psycopg

from tests.support.postgresql import PostgreSQL

from .. import record, report
from .site import children, cpu

LISTENERS = [0, 1, 8, 64]
PAYLOAD = 'x' * 250


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches.scaling.notify',
        description="Notify in a transaction each, with some who listen.")
    parser.add_argument('--count', type=int, default=3000)
    parser.add_argument('--json', metavar='FILE')
    options = parser.parse_args()
    rows = []
    with PostgreSQL(max_connections=100) as postgresql:
        recorded = record.Run('benches.scaling.notify', postgresql)
        print(recorded)
        for listeners in LISTENERS:
            for row in run(postgresql, listeners, options.count):
                report.print_part('', [row])
                rows.append(row)
        if options.json:
            recorded.write(options.json, [row.asdict() for row in rows])


def run(postgresql, listeners, count):
    uri = postgresql.uri + '/postgres'
    postmaster = int((postgresql.directory / 'data' / 'postmaster.pid')
        .read_text().split()[0])
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        connection = stack.enter_context(psycopg.connect(
                uri, autocommit=True))
        for _ in range(listeners):
            listener = stack.enter_context(psycopg.connect(
                    uri, autocommit=True))
            listener.execute('LISTEN bus')
            selector.register(listener, selectors.EVENT_READ)
        latencies, received = [], 0
        before, begun = _cpu(postmaster), time.perf_counter()
        for _ in range(count):
            connection.execute("SELECT pg_notify('bus', %s)", [PAYLOAD])
            committed, missing = time.perf_counter(), listeners
            while missing:
                for key, _ in selector.select(5):
                    got = len(list(key.fileobj.notifies(timeout=0)))
                    missing -= got
                    received += got
            latencies.append((time.perf_counter() - committed) * 1e3)
        took, used = time.perf_counter() - begun, _cpu(postmaster) - before
        assert received == count * listeners
    for text, unit, value in [
            ("CPU of PostgreSQL for each", 'µs', used / count * 1e6),
            ("from the commit to the last, median", 'ms',
                sorted(latencies)[count // 2]),
            ("one after the other", '1/s', count / took)]:
        yield report.Row(
            'notify', "NOTIFY, %d listeners: %s" % (listeners, text), unit,
            [], [value])


def _cpu(postmaster):
    return sum(map(cpu, [postmaster, *children(postmaster)]))


if __name__ == '__main__':
    main()
