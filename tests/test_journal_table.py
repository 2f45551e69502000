"""The table of the journal on PostgreSQL: how it is created, updated, purged
and removed, and its changes by others while the bus runs."""
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import wait_until
from support.bus import (
    Wire,
    drain,
    listen,
    listener_pid,
    payload,
    publish,
    stop_listener,
)
from support.server import run_python
from test_journal import ALONE, INSERT, TABLE, bus_server, ids, rows
from trytond import backend
from trytond.transaction import Transaction
from trytond_fastbus.journal import purger, schema

# The table of an older version
VERSION_1 = Path(__file__).with_name('support') / 'journal_v1.sql'


@pytest.fixture(autouse=True)
def _journal(configure):
    configure('bus', journal=True, long_polling_timeout=30)


def publish_again(database):
    "Publish, and try again as trytond does. Return the failures and ids"
    failures = 0
    while True:
        try:
            return failures, publish(database, 'c', {})
        except backend.DatabaseOperationalError as error:
            assert "has changed, try again" in str(error)
            failures += 1


def test_journal_is_dropped_and_made_again(postgresql, database):
    sections = {'database': {'uri': postgresql.uri}}
    publish(database, 'c', {})
    postgresql.execute('CREATE TABLE other (n integer)', database)

    for text in ["is removed", "does not exist"]:
        process = bus_server(sections, '-d', database, '--journal-drop')
        assert (process.returncode, process.stderr) == (0, '')
        assert process.stdout == f"'{database}': the journal {text}\n"
    assert postgresql.execute(
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'trytond_fastbus%'",
        database) == [['0']]
    assert postgresql.execute(
        "SELECT count(*) FROM pg_proc WHERE proname LIKE 'trytond_fastbus%'",
        database) == [['0']]
    assert bus_server(sections, '--journal-drop').returncode == 2
    process = bus_server(sections, '-d', 'none', '--journal-drop')
    assert process.returncode == 1
    line, = process.stderr.splitlines()
    assert "the journal of 'none' cannot be removed: no connection" in line

    # The process that is told to do so creates the table.
    publish_again(database)
    assert len(rows(postgresql, database)) == 1


def test_role_that_may_not_drop_the_journal_is_told_so(
        postgresql, database, limited):
    publish(database, 'c', {})
    process = bus_server(limited, '-d', database, '--journal-drop')
    assert process.returncode == 1
    assert "cannot be removed: must be owner of table" in process.stderr
    assert rows(postgresql, database)


@pytest.mark.parametrize('fault', [
        f'DROP TABLE {TABLE} CASCADE',
        f'DROP SEQUENCE {TABLE}_seq CASCADE',
        f'ALTER TABLE {TABLE} RENAME TO renamed',
        ])
def test_table_that_changes_fails_one_transaction_at_the_most(
        postgresql, database, caplog, fault):
    listen(database)
    publish(database, 'c', {})
    postgresql.execute(fault, database)

    failed, sent = publish_again(database)

    assert failed == 1
    assert "the journal of the bus on" in ' '.join(caplog.messages)
    for _ in range(5):
        sent = publish(database, 'c', {})
    assert [id_ for _, id_ in rows(postgresql, database)][-1:] == sent


FORBID = f'''\
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'forbidden'; END $$;
CREATE TRIGGER forbid BEFORE %s ON {TABLE} EXECUTE FUNCTION forbid()'''
SLOW = f'''\
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE DELETE ON {TABLE} EXECUTE FUNCTION slow()'''


@pytest.mark.parametrize('fault', [
        FORBID % 'INSERT',
        f'ALTER TABLE {TABLE} ADD CHECK (message IS NULL) NOT VALID',
        ], ids=['trigger', 'check'])
def test_table_that_refuses_rows_stops_no_business(
        postgresql, database, caplog, fault):
    listen(database)
    before, = publish(database, 'c', {})
    postgresql.execute(fault, database)

    # trytond tries more often.
    failed, sent = publish_again(database)

    assert failed == 2
    assert "are sent without the journal" in ' '.join(caplog.messages)
    assert "message_id" not in ' '.join(caplog.messages)
    for _ in range(5):
        sent += publish(database, 'c', {})
    assert ids(drain(database, ['c'], 6, before)) == sent


def test_table_whose_rows_cannot_be_read_stops_no_message(
        postgresql, database, caplog):
    listen(database)
    before, = publish(database, 'c', {})
    postgresql.execute(
        f'ALTER TABLE {TABLE} ALTER message TYPE jsonb USING message::jsonb',
        database)
    sent = [publish_again(database)[1][0] for _ in range(5)]

    assert ids(drain(database, ['c'], 5, before)) == sent
    lines = [line for line in caplog.messages if "without the journal" in line]
    assert "octet_length" in lines[0]


def test_locked_table_stops_no_listener(
        configure, postgresql, database, caplog):
    "As VACUUM FULL locks it. A connection that is given up stays in the queue"
    configure('bus', keep_alive_timeout=2, select_timeout=1)
    listen(database)
    pid = listener_pid(database)
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.execute('BEGIN')
        wire.execute(f'LOCK TABLE {TABLE}')
        wait_until(lambda: "is locked" in ' '.join(caplog.messages))
        postgresql.execute("NOTIFY bus, '%s'" % payload(
                'c', {'message_id': 'live'}), database)
        assert ids(drain(database, ['c'], 1)) == ['live']
        assert listener_pid(database) == pid
        wire.execute('COMMIT')
    sent = publish(database, 'c', {})
    assert ids(drain(database, ['c'], 1, 'live')) == sent


def test_settings_of_the_database_stop_no_deletion(
        configure, postgresql, database):
    configure(
        'bus', journal_timeout=1, select_timeout=1, keep_alive_timeout=60)
    postgresql.execute(
        f'ALTER DATABASE "{database}" SET default_transaction_read_only = on; '
        f'ALTER DATABASE "{database}" SET statement_timeout = 2000')
    listen(database)
    pid = listener_pid(database)
    postgresql.execute(f'BEGIN READ WRITE; {SLOW}; COMMIT', database)
    publish(database, 'c', {})
    wait_until(lambda: not rows(postgresql, database))
    assert listener_pid(database) == pid


def test_deletion_that_is_refused_stops_no_listener(
        configure, postgresql, database, caplog):
    configure('bus', journal_timeout=1, select_timeout=1)
    listen(database)
    pid = listener_pid(database)
    postgresql.execute(FORBID % 'DELETE', database)
    publish(database, 'c', {})
    wait_until(lambda: [
            record for record in caplog.records
            if record.threadName == 'bus-worker'
            and "cannot delete old rows" in record.getMessage()])
    assert listener_pid(database) == pid


def test_publishing_needs_no_thread(monkeypatch, database, caplog):
    publish(database, 'c', {})
    monkeypatch.setattr(purger, '_purger', purger._Purger())

    def start(thread):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, 'start', start)
    for _ in range(3):
        publish(database, 'c', {})
    lines = [line for line in caplog.messages if "can't start" in line]
    assert len(lines) == 1


@pytest.mark.parametrize('fault', [
        f'DROP FUNCTION {TABLE}_commit CASCADE',
        f'ALTER TABLE {TABLE} DISABLE TRIGGER {TABLE}_commit',
        ])
def test_trigger_that_is_missing_is_made_by_the_next_process(
        postgresql, database, peer, fault):
    publish(database, 'c', {})
    postgresql.execute(fault, database)

    sent = peer().call('publish', database, 'c', {})

    assert [id_ for _, id_ in rows(postgresql, database)][-1:] == sent
    assert rows(postgresql, database)[-1][0] > 0


@pytest.mark.parametrize('fault', [
        f"SELECT setval('{TABLE}_seq', 1, false)",
        # A logical replica that became the primary is in this state.
        f'TRUNCATE {TABLE} RESTART IDENTITY; '
        f"INSERT INTO {TABLE} (seq, channel, message) SELECT n, 'c', "
        "'{\"message_id\":' || n || '}' FROM generate_series(1, 50) AS n",
        ])
def test_sequence_behind_the_rows_fails_no_commit(
        postgresql, database, fault):
    sent = publish(database, 'c', *({} for _ in range(20)))
    postgresql.execute(fault, database)

    for _ in range(3):
        sent += publish(database, 'c', {}, {})

    found = rows(postgresql, database)
    assert [id_ for _, id_ in found][-6:] == sent[-6:]
    numbers = [number for number, _ in found]
    assert len({*numbers}) == len(numbers)


def test_objects_of_other_schemas_are_not_used(postgresql, database):
    "Another role may plant such objects in a schema of the search path."
    postgresql.execute('''
        CREATE TABLE harm (who text);
        CREATE FUNCTION public.to_json(text) RETURNS json LANGUAGE sql AS
            'INSERT INTO public.harm VALUES (''to_json''); SELECT null::json';
        CREATE FUNCTION public.harm(text, json) RETURNS text LANGUAGE sql AS
            'INSERT INTO public.harm VALUES (''||''); SELECT null';
        CREATE OPERATOR public.|| (
            LEFTARG = text, RIGHTARG = json, FUNCTION = public.harm);
        CREATE FUNCTION public.pg_notify(text, varchar) RETURNS void
            LANGUAGE sql AS 'INSERT INTO public.harm VALUES (''notify'')';
        CREATE FUNCTION public.less(bigint, bigint) RETURNS boolean
            LANGUAGE sql AS
            'INSERT INTO public.harm VALUES (''>''); SELECT true';
        CREATE OPERATOR public.> (
            LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.less);
        ''', database)
    postgresql.execute(
        f'ALTER DATABASE "{database}" SET search_path = public, pg_catalog')
    backend.Database(database).close()

    sent = publish(database, 'c', {}, {'text': "x" * 10_000})

    assert ids(drain(database, ['c'], 2)) == sent
    stop_listener(database)
    assert ids(drain(database, ['c'], 2)) == sent
    assert postgresql.execute('TABLE harm', database) == []


def test_table_of_another_role_is_not_used(
        postgresql, database, limited):
    "Such a table may have any trigger."
    role = limited['database']['uri'].split('@')[0].rpartition('/')[2]
    postgresql.execute(
        f'GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}; '
        + schema.MAKE + 'RESET ROLE; CREATE ROLE owner_of_all LOGIN; '
        'GRANT ALL ON ALL TABLES IN SCHEMA public TO owner_of_all',
        database)
    limited['database']['uri'] = postgresql.uri.replace(
        'postgres@', 'owner_of_all@')
    try:
        alone = run_python(ALONE, limited, database)
        assert alone.returncode == 0, alone.stderr
        assert "belongs to a role that is neither" in alone.stderr
    finally:
        postgresql.execute(
            'DROP OWNED BY owner_of_all; DROP ROLE owner_of_all', database)


def test_older_table_is_updated_and_a_newer_one_refused(
        postgresql, database, peer):
    postgresql.restore(database, VERSION_1)
    postgresql.execute(INSERT % 'before', database)

    sent = peer().call('publish', database, 'c', {})
    # An older process continues like this.
    postgresql.execute(INSERT % 'after', database)

    expected = ['before', *sent, 'after']
    assert [id_ for _, id_ in rows(postgresql, database)] == expected
    assert ids(drain(database, ['c'], 3)) == expected

    postgresql.execute(
        f"COMMENT ON TABLE {TABLE} IS 'trytond-fastbus journal, version 99'",
        database)
    process = bus_server(
        {'database': {'uri': postgresql.uri}, 'bus': {'journal': True}},
        '-d', database)
    assert process.returncode == 1
    assert "has version 99, which is newer than version 3" in process.stderr
    process = run_python(
        ALONE, {'database': {'uri': postgresql.uri},
            'bus': {'journal': True, 'select_timeout': 1}}, database)
    assert "are sent without the journal" in process.stderr


def test_bus_of_another_channel_has_rows_of_its_own(postgresql, database):
    from trytond_fastbus import Bus

    class Other(Bus):
        _channel = 'other'

    with Transaction().start(database, 0):
        for bus in [Bus, Other]:
            bus.publish('c', {'of': bus.__name__})
    polls = []
    for bus in [Bus, Other]:
        with ThreadPoolExecutor() as executor:
            poll = executor.submit(bus.subscribe, database, ['c'])
            polls.append(poll.result()['message']['of'])
        stop_listener(database)
    assert polls == ['Bus', 'Other']


def test_rows_are_deleted_where_no_process_listens(
        configure, postgresql, database):
    configure('bus', journal_timeout=1)
    publish(database, 'c', *({} for _ in range(2500)))
    wait_until(
        lambda: not rows(postgresql, database), message="rows are left")


def test_rows_that_are_deleted_are_not_scanned_again(postgresql, database):
    "Another transaction, such as a dump, may still see the rows."
    from trytond_fastbus import journal
    publish(database, 'c', *({} for _ in range(3000)))
    table = journal.of(database)
    with Wire(f'{postgresql.uri}/{database}') as dump, \
            Wire(f'{postgresql.uri}/{database}') as wire:
        dump.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
        dump.execute('SELECT 1')
        above, more = table.purge(wire._connection, -1)
        for _ in range(2):
            before = above
            assert more
            above, more = table.purge(wire._connection, -1, above)
            assert above > before
        _, more = table.purge(wire._connection, -1, above)
        assert not more
        dump.execute('COMMIT')
    assert not rows(postgresql, database)


def test_pages_are_bounded_by_bytes(postgresql, database):
    from trytond_fastbus import journal
    publish(database, 'c', *({'text': "x" * 100_000} for _ in range(30)))
    table = journal.of(database)
    with Wire(f'{postgresql.uri}/{database}') as wire:
        last, pages = 0, []
        while (page := table.read(
                    wire._connection, last, 1_000_000))[-1][0] > last:
            last = page[-1][0]
            pages.append(len([row for row in page if row[-1]]))
        assert len(table.read(wire._connection, 0, 1)) == 1
    assert pages == [10, 10, 10]


def test_start_reads_only_young_rows(postgresql, database, peer):
    publish(database, 'c', *({} for _ in range(100)))
    postgresql.execute(
        f"UPDATE {TABLE} SET created = created - interval '2 hours'",
        database)
    new = publish(database, 'c', {}, {})
    other = peer()
    assert ids(other.call('drain', database, ['c'], 2)) == new
    assert other.call('statistics', database)['published'] == 2
