"""The time until a process has messages of others through the journal."""
import json
import random
import sqlite3
import threading
import time
import uuid
from pathlib import Path

import psycopg

from . import samples, sides
from .report import Row

TABLE = 'trytond_fastbus_journal'


class Directory:
    "A directory of SQLite databases, instead of a cluster"

    uri = 'sqlite://'

    def __init__(self, path):
        self.path = path

    def create_database(self, name):
        self.file(name).touch()

    def file(self, name):
        return Path(self.path, name + '.sqlite')


def catch_up(postgresql, directory, quick):
    "Rows of new processes that find a table full of messages"
    count, rounds = (20000, 1) if quick else (100000, 5)
    rows = journal_rows(count)
    for name, cluster in [("PostgreSQL", postgresql), ("SQLite", directory)]:
        with sides.both(cluster, ['journal']) as (side,):
            side(publish, [('other', samples.notification())])
            database = side.database
        insert = insert_sqlite if cluster is directory else insert_postgresql
        insert(cluster, database, rows)
        rates = []
        for _ in range(rounds):
            side = sides.Side('journal', cluster, database)
            try:
                side(published)
                rates.append(count / side(first_poll))
            finally:
                side.close()
        yield Row(
            'g', "catch-up with %s rows on %s" % (
                format(count, ','), name),
            'rows/s', [], rates, rate=True, floor=50000, statistic='median')


def journal_rows(count):
    "Channels and messages of about 300 bytes; the last channel is `last`"
    return [
        ('last' if number == count - 1
            else 'client:%s' % uuid.UUID(int=number // samples.PER_CHANNEL),
            json.dumps({
                    **samples.notification(),
                    'body': "Some text of the usual length. " * 4,
                    'message_id': str(uuid.uuid4()),
                    }, separators=(',', ':')))
        for number in range(count)]


def insert_postgresql(postgresql, database, rows):
    "Insert rows that have their numbers"
    with psycopg.connect(f'{postgresql.uri}/{database}') as connection:
        connection.execute(
            f"INSERT INTO {TABLE} (seq, channel, message) "
            f"SELECT nextval('{TABLE}_seq'), channel, message "
            "FROM unnest(%s::text[], %s::text[]) AS rows (channel, message)",
            tuple(map(list, zip(*rows, strict=True))))


def insert_sqlite(directory, database, rows):
    connection = sqlite3.connect(directory.file(database))
    with connection:
        connection.executemany(
            f'INSERT INTO {TABLE} (channel, message) VALUES (?, ?)', rows)
    connection.close()


def across(directory, quick):
    "Rows of two processes on SQLite"
    count, seconds = (60, 2) if quick else (200, 10)
    with sides.both(directory, ['journal']) as (publisher,):
        publisher(published)
        poller = sides.Side('journal', directory, publisher.database)
        try:
            poller.start(arrivals, count)
            time.sleep(.5)
            returned = publisher(departures, count)
            arrived = poller.result()
            assert len(arrived) == count == len(set(arrived))
            times = [
                max(arrived[id] - returned[id], 0) * 1e3 for id in returned]
            yield Row(
                'g', "SQLite, commit to another process", 'ms', [], times,
                statistic='median')
            yield Row(
                'g', "SQLite, commit to another process, p99", 'ms', [],
                [sorted(times)[int(count * .99)]], most=100)
            yield Row(
                'g', "SQLite, a process that waits, of a core", '%', [],
                [poller(share, seconds) * 100], most=1)
        finally:
            poller.close()


def published(database):
    "Publish a message, so that everything needed is loaded"
    publish(database, [('other', samples.notification())])


def publish(database, messages):
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    with Transaction().start(database, 0) as transaction:
        for channel, message in messages:
            Bus.publish(channel, message)
        transaction.commit()


def first_poll(database):
    from trytond.bus import Bus
    start = time.perf_counter()
    response = Bus.subscribe(database, ['last'])
    took = time.perf_counter() - start
    assert response['message']
    return took


def arrivals(database, count):
    "The arrival times of this number of messages, by their ids"
    from trytond.bus import Bus
    found, last = {}, None
    while len(found) < count:
        message = Bus.subscribe(database, ['user:1'], last)['message']
        last = message['message_id']
        found[last] = time.monotonic()
    return found


def departures(database, count):
    "Publish messages, and return when their commits were over"
    found = {}
    for _ in range(count):
        # At any moment between two looks of the other
        time.sleep(random.uniform(.05, .15))
        message = samples.notification()
        publish(database, [('user:1', message)])
        found[message['message_id']] = time.monotonic()
    return found


def share(database, seconds):
    "The share of a core that a waiting process takes"
    from trytond.bus import Bus
    threading.Thread(
        target=Bus.subscribe, args=(database, ['nothing']),
        daemon=True).start()
    time.sleep(1)
    before = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - before) / seconds
