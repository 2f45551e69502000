"""Numbers that go back, and numbers without a row, while connections stay
open. The journal never goes silent."""
import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import (
    Polls,
    Wire,
    drain,
    listen,
    payload,
    publish,
    received,
    statistics,
    stop_listener,
)
from test_journal import INSERT, TABLE, ids, rows
from trytond import backend
from trytond_fastbus.journal import schema


@pytest.fixture(autouse=True)
def _journal(configure, caplog):
    configure('bus', journal=True, long_polling_timeout=30)
    caplog.set_level(logging.WARNING, 'trytond.bus')


@pytest.fixture
def wire(postgresql, database):
    "A connection that exists from the beginning"
    with Wire(f'{postgresql.uri}/{database}') as wire:
        yield wire


def take(database, last, new):
    """Let clients wait after a message, and return the messages of new() that
    they get"""
    with Polls(database, ['c'], 3, last) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 3)
        sent = new()
    assert ids(r['message'] for r in polls.results) == sent[:1] * 3
    assert ids(drain(database, ['c'], len(sent), last)) == sent
    return sent


@pytest.mark.parametrize('change, is_back', [
        (f'DELETE FROM {TABLE}', False),
        (f'TRUNCATE {TABLE} RESTART IDENTITY', True),
        (f"SELECT setval('{TABLE}_seq', 1, false)", False),
        (f'DROP TABLE {TABLE}', True),
        # An older backup is restored into the same tables.
        (f"DELETE FROM {TABLE} WHERE seq > 8; SELECT setval('{TABLE}_seq', 8)",
            True),
        ])
def test_messages_go_on(postgresql, database, caplog, change, is_back):
    listen(database)
    sent = publish(database, 'c', *({} for _ in range(20)))
    assert ids(drain(database, ['c'], 20))[-1] == sent[-1]
    postgresql.execute(change, database)

    last = sent[-1]
    for _ in range(3):
        def new():
            while True:
                try:
                    return publish(database, 'c', {}, {})
                except backend.DatabaseOperationalError as error:
                    assert "try again" in str(error)
        last = take(database, last, new)[-1]

    wait_until(lambda: statistics(database)['rewinds'] == is_back)
    if is_back:
        wait_until(
            lambda: "went back from number" in ' '.join(caplog.messages))
    assert is_back or "went back" not in ' '.join(caplog.messages)


def test_backup_that_is_restored_in_place(
        postgresql, database, tmp_path, caplog):
    listen(database)
    kept = publish(database, 'c', {}, {})
    dump = tmp_path / 'dump'
    dump.write_text(postgresql._run(
            'pg_dump', '-c', '--if-exists', '-t', f'{TABLE}*',
            f'{postgresql.uri}/{database}'))
    lost = publish(database, 'c', *({} for _ in range(9)))
    assert ids(drain(database, ['c'], 11)) == kept + lost
    postgresql.restore(database, dump)

    with Polls(database, ['c'], 2, lost[-1]) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 2)
        # A program that does not know trytond does this.
        postgresql.execute(INSERT % 'new', database)
    assert ids(r['message'] for r in polls.results) == ['new'] * 2
    wait_until(
        lambda: "went back from number" in ' '.join(caplog.messages))


def test_listener_makes_nothing_while_a_backup_is_restored(
        postgresql, database):
    "The restoration would fail on an object that exists."
    listen(database)
    sent = publish(database, 'c', {}, {})
    postgresql.execute(f'DROP TRIGGER {TABLE}_commit ON {TABLE}', database)
    # The process has to read the table, because it does not know the message.
    assert ids(drain(database, ['c'], 2, 'unknown')) == sent
    stop_listener(database)
    assert ids(drain(database, ['c'], 2)) == sent
    assert postgresql.execute(
        f"SELECT count(*) FROM pg_trigger WHERE tgname = '{TABLE}_commit'",
        database) == [['0']]


def test_silence_is_no_hiding_place(postgresql, database, wire):
    "The row has no notification, as when the queue is nearly full."
    listen(database)
    sent = publish(database, 'c', {})
    wire.execute('BEGIN')
    wire.execute(wire.query(
            f"SELECT replace(pg_get_functiondef(oid), '{schema.QUEUE_MAX}', "
            f"'-1') FROM pg_proc WHERE proname = '{TABLE}_commit'")[0])
    wire.execute('COMMIT')
    with Wire(f'{postgresql.uri}/{database}') as other:
        other.listen('bus')
        take(database, sent[-1], lambda: publish(database, 'c', {}))
        wire.notify([('bus', 'end')])
        assert other.receive(1) == [('bus', 'end')]
    assert len(rows(postgresql, database)) >= 2


def forged(table, number):
    "The payload that the trigger would send"
    return json.dumps({
            'channel': 'c',
            'message': {'message_id': f'forged {uuid.uuid4()}'},
            'table': int(table),
            'seq': number,
            }, separators=(',', ':'))


def test_forged_numbers_change_nothing(postgresql, database, wire, caplog):
    role = 'nothing_' + database
    postgresql.execute(f'CREATE ROLE {role} LOGIN')
    wire.execute(f'SET SESSION AUTHORIZATION {role}')
    listen(database)
    sent = publish(database, 'c', {})
    table, = wire.query(f"SELECT '{TABLE}'::regclass::oid")
    for _ in range(5):
        next_ = statistics(database)['number'] + 1
        wire.notify([
            ('bus', forged(table, number)) for number in [
                next_, 0, 1, next_, next_ + 1, next_ + 2, 2 ** 62,
                2 ** 64 - 1]])
        wire.notify([
            ('bus.part', str(number)) for number in [
                0, next_ + 1, 2 ** 62, 2 ** 64 - 1]])
        wire.notify([('bus.part', '²'), ('bus.part', '9' * 5000)])
        sent += publish(
            database, 'c', *({'text': "x" * size} for size in [1, 9000]))
        # A message without a number is live, as with stock.
        wire.notify([
            ('bus', forged(table, number)) for number in [-1, 2 ** 64]])
    got = [m['message_id'] for m in received(database, 'c')]
    wire.execute('RESET SESSION AUTHORIZATION')
    postgresql.execute(f'DROP ROLE {role}')

    assert [id_ for id_ in got if not id_.startswith('forged')] == sent
    assert len(got) > len(sent)
    stop_listener(database)
    assert ids(drain(database, ['c'], len(sent))) == sent
    assert not any("has no connection" in m for m in caplog.messages)


def test_next_message_does_not_wait_for_its_row(
        configure, database, monkeypatch):
    configure('bus', select_timeout=300)
    listen(database)
    last, = publish(database, 'c', {})
    # All rows are read after a look.
    assert ids(drain(database, ['c'], 1, 'unknown')) == [last]
    from trytond_fastbus.journal import PostgreSQL
    read, released = PostgreSQL.read, threading.Event()

    def wait(*args):
        assert released.wait(60)
        return read(*args)

    with monkeypatch.context() as patch:
        patch.setattr(PostgreSQL, 'read', wait)
        with Polls(database, ['c'], 3, last) as polls:
            wait_until(lambda: statistics(database)['waiting'] == 3)
            sent = publish(database, 'c', {})
        released.set()
    assert ids(r['message'] for r in polls.results) == sent * 3
    sent += publish(database, 'c', {}, {})
    assert ids(drain(database, ['c'], 3, last)) == sent


def test_trytons_in_two_schemas_do_not_silence_each_other(
        postgresql, database, wire, peer):
    role = 'second_' + database
    postgresql.execute(
        f'CREATE ROLE {role} LOGIN; CREATE SCHEMA second AUTHORIZATION {role};'
        f'ALTER ROLE {role} SET search_path = second, public;'
        f'GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}', database)
    try:
        wire.execute(f'SET SESSION AUTHORIZATION {role}')
        wire.execute('SET search_path = second')
        wire.execute(schema.MAKE)
        listen(database)
        # The numbers of one database are above those of the other.
        sent = publish(database, 'c', *({} for _ in range(20)))
        for number in range(5):
            wire.execute(INSERT % f'second {number}')
            sent += publish(database, 'c', {})
        assert ids(drain(database, ['c'], len(sent))) == sent
    finally:
        wire.execute('RESET SESSION AUTHORIZATION')
        postgresql.execute(
            f'DROP OWNED BY {role} CASCADE; DROP ROLE {role}', database)


def test_messages_are_delivered_once_when_the_rights_return(
        postgresql, database, limited, peer, monkeypatch):
    sent = publish(database, 'c', {})
    role = limited['database']['uri'].partition('@')[0].rpartition('/')[2]
    grant = schema.GRANT.format(role=role)
    postgresql.execute(grant, database)
    other = peer(limited['database']['uri'])
    assert ids(other.call('drain', database, ['c'], 1)) == sent
    before = other.call('statistics', database)['published']

    postgresql.execute(f'REVOKE ALL ON {TABLE} FROM {role}', database)
    for _ in range(3):
        # The message is live in that process.
        sent += publish(database, 'c', {})
        assert ids(other.call('drain', database, ['c'], 1, sent[-2])) == (
            sent[-1:])
    postgresql.execute(grant, database)
    wait_until(
        lambda: other.call('statistics', database)['number'], 30)
    sent += publish(database, 'c', {})
    assert ids(other.call('drain', database, ['c'], 1, sent[-2])) == sent[-1:]
    assert other.call('statistics', database)['published'] == before + 4


@pytest.mark.parametrize('step', ["+ interval '1 hour'", "- interval '1 day'"])
def test_rows_of_a_clock_that_was_wrong(postgresql, database, peer, step):
    "Rows from the future are no younger than those that follow them."
    old = publish(database, 'c', {})
    postgresql.execute(
        f'UPDATE {TABLE} SET created = created {step}', database)
    publish(database, 'd', {})
    postgresql.execute(
        f"UPDATE {TABLE} SET created = created - interval '400 seconds' "
        "WHERE channel = 'd'", database)
    new = publish(database, 'c', {})

    other = peer(cache_timeout=300)

    assert ids(other.call('drain', database, ['c'], 1)) == new
    assert old != new


def test_messages_are_taken_between_the_queries_for_polls(
        configure, postgresql, database):
    "The messages that the polls name were evicted"
    configure('bus', cache_size=20_000, select_timeout=3600)
    listen(database)
    first, = publish(database, 'c', {})
    publish(database, 'c', *({'text': "x" * 1000} for _ in range(40)))
    wait_until(lambda: statistics(database)['published'] > 41)
    before = statistics(database)['published']
    from trytond_fastbus.journal import PostgreSQL
    find, published, begun = PostgreSQL.first, [], []

    def poll(number):
        begun.append(number)
        drain(database, ['c', f'c{number}'], 1, first)

    def slow(self, connection, channels, *args):
        published.append(statistics(database)['published'] - before)
        if len(published) == 1:
            # The next look serves all the others.
            wait_until(lambda: len(begun) == 4)
        postgresql.execute("NOTIFY bus, '%s'" % payload(
                'c', {'message_id': len(published)}), database)
        return find(self, connection, channels, *args)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setattr(PostgreSQL, 'first', slow)
        list(pool.map(poll, range(4)))
    assert published == [0, 1, 2, 3]


def test_request_that_postgresql_refuses_answers_that_poll_only(
        configure, postgresql, database, caplog):
    """The encoding of the database has no characters for the channel. The
    message that the poll names was evicted."""
    configure('bus', cache_size=20_000, select_timeout=1)
    listen(database)
    first, = publish(database, 'c', {})
    sent = publish(database, 'c', *({'text': "x" * 1000} for _ in range(40)))
    wait_until(lambda: statistics(database)['published'] > 41)
    from trytond_fastbus.journal import PostgreSQL
    find = PostgreSQL.first

    def refuse(self, connection, channels, *args):
        if 'refused' in channels:
            connection.cursor().execute("SELECT 'a'::int")
        return find(self, connection, channels, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgreSQL, 'first', refuse)
        got, = drain(database, ['c', 'refused'], 1, first)
    assert got['message_id'] in sent
    assert any(
        "cannot read the journal for the channels ['" in message
        for message in caplog.messages), caplog.messages
    assert not any("has no connection" in m for m in caplog.messages)
    assert ids(drain(database, ['c'], 1, first)) == sent[:1]
