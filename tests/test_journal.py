"""The journal on PostgreSQL. No committed message is lost."""
import base64
import json
import logging
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import (
    Polls,
    Wire,
    drain,
    end_listener,
    listen,
    payload,
    publish,
    received,
    statistics,
    stop_listener,
)
from support.peer import Peer
from support.postgresql import free_port
from support.proxy import Proxy
from support.server import BusServer, run_python
from trytond import backend
from trytond.transaction import Transaction
from trytond_fastbus import Bus
from trytond_fastbus.journal import PostgreSQL

TABLE = 'trytond_fastbus_journal'
INSERT = (
    f"INSERT INTO {TABLE} (channel, message) "
    "VALUES ('c', '{\"message_id\": \"%s\"}')")


@pytest.fixture(autouse=True)
def _journal(configure):
    configure('bus', journal=True, long_polling_timeout=30)


def ids(messages):
    return [message['message_id'] for message in messages]


def rows(postgresql, database):
    "Return the numbers and the ids in the journal"
    return [(int(seq), json.loads(message)['message_id'])
        for seq, message in postgresql.execute(
            f'SELECT seq, message FROM {TABLE} ORDER BY seq', database)]


def test_message_is_a_row_with_the_number_of_its_commit(
        postgresql, database):
    sent = publish(database, 'c', {'text': "é"}, {'text': "x" * 10_000})

    assert ids(drain(database, ['c'], 2)) == sent
    numbers, messages = zip(*rows(postgresql, database), strict=True)
    assert list(messages) == sent
    assert 0 < numbers[0] < numbers[1]


@pytest.mark.one_series
def test_new_process_has_the_messages_of_before(database, peer):
    sent = publish(database, 'c', *({'n': n} for n in range(50)))

    new = peer()

    assert ids(new.call('drain', database, ['c'], 49, sent[0])) == sent[1:]
    assert ids(new.call('drain', database, ['c'], 50)) == sent


@pytest.mark.one_series
def test_old_messages_are_for_clients_that_resume_only(
        postgresql, database, peer):
    old = publish(database, 'c', {}, {}, {})
    postgresql.execute(
        f"UPDATE {TABLE} SET created = created - interval '400 seconds'",
        database)
    new = publish(database, 'c', {})

    other = peer(cache_timeout=300)

    assert ids(other.call('drain', database, ['c'], 1)) == new
    assert ids(other.call('drain', database, ['c'], 1, 'unknown')) == new
    assert ids(other.call('drain', database, ['c'], 3, old[0])) == (
        old[1:] + new)


@pytest.mark.parametrize('first', ['inner', 'outer'])
def test_order_is_that_of_the_commits(database, first):
    from trytond.bus import Bus
    outer, inner = {'from': 'outer'}, {'from': 'inner'}
    with Transaction().start(database, 0) as transaction:
        Bus.publish('c', outer)
        if first == 'outer':
            transaction.commit()
        with Transaction().new_transaction() as other:
            Bus.publish('c', inner)
            other.commit()
        transaction.commit()

    messages = drain(database, ['c'], 2)

    assert messages[0]['from'] == first
    assert messages[0] != messages[1]


def test_transaction_stuck_after_publish_blocks_no_other(database):
    from trytond.bus import Bus
    with Transaction().start(database, 0) as transaction:
        stuck = {}
        Bus.publish('c', stuck)
        with Transaction(new=True).start(database, 0) as other:
            assert other.connection is not transaction.connection
            Bus.publish('c', {})
        sent = publish(database, 'c', *({} for _ in range(10)))

        assert ids(drain(database, ['c'], 11))[1:] == sent
        transaction.commit()
    assert ids(drain(database, ['c'], 1, sent[-1])) == [stuck['message_id']]


def test_process_that_is_stopped_in_a_transaction_blocks_no_other(
        database, peer):
    stopped = peer()
    stopped.call('publish', database, 'c', {})
    stopped.start('publish_slowly', database, 'c', 2)
    assert stopped.result() == 'published'
    stopped.signal(signal.SIGSTOP)
    try:
        sent = publish(database, 'c', {}, {})
        assert ids(drain(database, ['c'], 3))[1:] == sent
    finally:
        stopped.signal(signal.SIGCONT)
    late = stopped.result()
    assert ids(drain(database, ['c'], 2, sent[-1])) == late


def test_rolled_back_messages_are_none(postgresql, database):
    from trytond.bus import Bus
    with Transaction().start(database, 0) as transaction:
        Bus.publish('c', {'n': 1})
        transaction.rollback()
        Bus.publish('c', {'n': 2})
        cursor = transaction.connection.cursor()
        cursor.execute('SAVEPOINT one')
        Bus.publish('c', {'n': 3})
        cursor.execute('ROLLBACK TO SAVEPOINT one')
        Bus.publish('c', {'n': 4})
        # A module may do this without trytond.
        transaction.connection.commit()
        Bus.publish('c', {'n': 5})
        transaction.rollback()
    publish(database, 'c', {'n': 6}, autocommit=True)

    assert [m['n'] for m in received(database, 'c')] == [2, 4, 6]
    # The echo of the listener is also there.
    assert len(rows(postgresql, database)) == 4


def test_read_only_transaction_sends_live(postgresql, database):
    from trytond.bus import Bus
    listen(database)
    before = rows(postgresql, database)
    with Transaction().start(database, 0, readonly=True) as transaction:
        message = {}
        Bus.publish('c', message)
        # As trytond's dispatcher does
        transaction.commit()

    assert ids(drain(database, ['c'], 1)) == [message['message_id']]
    assert rows(postgresql, database) == before


def test_stock_processes_go_on(postgresql, database, peer):
    with Peer({
                'database': {'uri': postgresql.uri},
                'bus': {
                    'class': None, 'select_timeout': 1,
                    'long_polling_timeout': 30},
                }) as stock, \
            Wire(f'{postgresql.uri}/{database}') as wire:
        stock.call('listen', database)
        listen(database)
        wire.listen('bus')
        ours = publish(database, 'c', {'from': 'ours'})
        theirs = stock.call('publish', database, 'c', {'from': 'stock'})

        assert ids(drain(database, ['c'], 2)) == ours + theirs
        # Stock reverses what it receives at once.
        received = stock.call('drain', database, ['c'], 2)
        assert set(ids(received)) == {*ours, *theirs}
        (_, first), _ = wire.receive(2)
        assert list(json.loads(first)) == [
            'channel', 'message', 'table', 'seq']


@pytest.mark.one_series
def test_row_of_psql_is_a_message(postgresql, database, caplog):
    listen(database)
    postgresql.execute(INSERT % 'one', database)
    postgresql.execute(
        f"INSERT INTO {TABLE} (channel, message) VALUES ('c', 'garbage'); "
        + INSERT % 'two', database)
    assert ids(drain(database, ['c'], 2)) == ['one', 'two']

    stop_listener(database)
    assert ids(drain(database, ['c'], 2)) == ['one', 'two']
    assert statistics(database)['skipped'] == 1
    assert any(
        "skipped a row of the journal: not a message" in message
        for message in caplog.messages)


@pytest.mark.one_series
def test_row_that_is_too_large_is_not_read(
        configure, postgresql, database, caplog):
    configure('bus', cache_size=20_000, message_size=20_000)
    listen(database)
    postgresql.execute(
        f"INSERT INTO {TABLE} (channel, message) VALUES ('c', concat("
        "'{\"message_id\": 1, \"x\": \"', repeat('x', 20000), '\"}')); "
        + INSERT % 'two', database)
    for skipped in [1, 1]:
        assert ids(drain(database, ['c'], 1)) == ['two']
        assert statistics(database)['skipped'] == skipped
        stop_listener(database)
    assert any(
        "a row of the journal: larger than [bus] message_size" in message
        for message in caplog.messages)


@pytest.mark.one_series
def test_row_has_its_content_of_the_commit(postgresql, database):
    "A transaction may change or delete its own rows."
    publish(database, 'c', {})
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.execute('BEGIN')
        wire.execute(INSERT % 'deleted')
        wire.execute(f'DELETE FROM {TABLE} WHERE seq < 0')
        wire.execute(INSERT % 'old')
        wire.execute(
            f"UPDATE {TABLE} SET message = "
            "replace(message, 'old', 'updated') WHERE seq < 0")
        wire.execute('COMMIT')
        # The row is numbered at once. The rollback releases its lock.
        wire.execute('BEGIN')
        wire.execute(INSERT % 'rolled back')
        wire.execute('SET CONSTRAINTS ALL IMMEDIATE')
        wire.execute('ROLLBACK')
        # The path is that of trytond's tables. Ours are in another schema.
        wire.execute('SET search_path TO pg_catalog')
        wire.execute('BEGIN')
        wire.execute((INSERT % 'elsewhere').replace(TABLE, f'public.{TABLE}'))
        wire.execute('COMMIT')

    assert ids(received(database, 'c'))[1:] == ['updated', 'elsewhere']


def test_nothing_is_lost_while_the_connection_is(
        postgresql, database, caplog):
    caplog.set_level(logging.WARNING, 'trytond.bus')
    listen(database)
    last = None
    for number in range(5):
        with Polls(database, ['c'], 5, last) as polls:
            wait_until(lambda: statistics(database)['waiting'] == 5)
            wait_until(lambda: end_listener(postgresql, database))
            sent = publish(
                database, 'c', *({'n': number, 'text': "x" * size}
                    for size in [1, 10_000, 1]))
        assert ids(r['message'] for r in polls.results) == sent[:1] * 5
        assert ids(drain(database, ['c'], 3, last)) == sent
        last = sent[-1]
    assert statistics(database)['gaps'] == 0
    assert any(
        message.endswith("messages of that time were read from the journal")
        for message in caplog.messages)


@pytest.mark.one_series
def test_process_that_lags_does_not_send_old_messages_again(
        postgresql, database, peer):
    with Proxy(postgresql.port) as proxy:
        lagging = peer(
            f'postgresql://postgres@127.0.0.1:{proxy.port}',
            select_timeout=60)
        sent = publish(database, 'c', {'n': 1})
        assert ids(lagging.call('drain', database, ['c'], 1)) == sent
        proxy.freeze()
        sent += publish(database, 'c', {'n': 2}, {'n': 3})
        # The client has the second one from here
        lagging.start('drain', database, ['c'], 1, sent[1])
        time.sleep(.5)
        proxy.thaw()

        assert ids(lagging.result()) == sent[2:]


@pytest.mark.one_series
def test_clients_may_change_between_processes(database, peer):
    peers = [peer() for _ in range(3)]
    for other in peers:
        other.call('listen', database)
    number, last = 300, None

    def publish_all():
        return [
            publish(database, 'c', {'n': n})[0] for n in range(number)]

    with ThreadPoolExecutor() as executor:
        publishing = executor.submit(publish_all)
        got = []
        while len(got) < number:
            message, = peers[len(got) % 3].call(
                'drain', database, ['c'], 1, last)
            last = message['message_id']
            got.append(last)
        assert got == publishing.result()


def test_connection_that_breaks_at_publish_fails_its_transaction_only(
        postgresql, database):
    publish(database, 'c', {})
    # No connection has checked the table yet.
    PostgreSQL._seen.clear()
    # 7.0 fails to roll back as well.
    with pytest.raises(Exception, match='connection'):
        with Transaction().start(database, 0) as transaction:
            cursor = transaction.connection.cursor()
            cursor.execute('SELECT pg_backend_pid()')
            process, = cursor.fetchone()
            postgresql.execute(f'SELECT pg_terminate_backend({process}, 5000)')
            Bus.publish('c', {})

    sent = publish(database, 'c', {})

    assert [id_ for _, id_ in rows(postgresql, database)][1:] == sent


def test_pool_that_is_exhausted_at_commit_blocks_nothing(
        configure, database):
    listen(database)
    publish(database, 'c', {})
    configure('database', maxconn=4)
    configure('cache', clean_timeout=3600)
    # One connection belongs to the listener.
    ready = threading.Barrier(3)

    def publish_together(number):
        from trytond.bus import Bus
        with Transaction().start(database, 0) as transaction:
            message = {'n': number}
            Bus.publish('c', message)
            ready.wait(30)
            transaction.connection.commit()
        return message['message_id']

    with ThreadPoolExecutor(3) as executor:
        sent = list(executor.map(publish_together, range(3)))

    assert sorted(ids(drain(database, ['c'], 4))[1:]) == sorted(sent)


@pytest.mark.one_series
def test_many_processes_may_start_at_once(postgresql, database, peer):
    peers = [peer() for _ in range(8)]
    for number, other in enumerate(peers):
        other.start('publish', database, 'c', {'n': number})
    sent = [other.result()[0] for other in peers]

    order = ids(drain(database, ['c'], 8))
    assert sorted(order) == sorted(sent)
    for other in peers:
        assert ids(other.call('drain', database, ['c'], 8)) == order
    assert [message for _, message in rows(postgresql, database)] == order


@pytest.mark.one_series
def test_old_rows_are_deleted_while_others_are_read(
        configure, postgresql, database):
    configure('bus', journal_timeout=5, select_timeout=1)
    listen(database)
    number, last, got = 3000, None, 0
    stop_listener(database)
    while got < number:
        sent = publish(database, 'c', *({} for _ in range(300)))
        assert ids(drain(database, ['c'], 300, last)) == sent
        got, last = got + 300, sent[-1]

    wait_until(
        lambda: not rows(postgresql, database), message="rows are left")
    assert ids(drain(database, ['c'], 1, publish(
                database, 'c', {}, {})[0]))


@pytest.mark.one_series
def test_all_messages_of_a_large_transaction_arrive(database, peer):
    number = 100_000
    new = peer(cache_size=256 * 1024 * 1024)
    new.call('listen', database)
    sent = [f'row {n}' for n in range(number)]
    messages = [{} for _ in range(1000)]
    with Transaction(new=True).start(database, 0) as transaction:
        # What publish does for a message, for most of them at once
        transaction.connection.cursor().execute(
            f"INSERT INTO {TABLE} (channel, message) "
            "SELECT 'c', '{\"message_id\": \"row ' || n || '\"}' "
            f"FROM generate_series(0, {number - 1}) AS n")
        for message in messages:
            Bus.publish('c', message)
    sent += ids(messages)

    for reader in [new, peer(cache_size=256 * 1024 * 1024)]:
        got = reader.call('drain', database, ['c'], len(sent))
        assert ids(got) == sent


@pytest.mark.one_series
def test_evicted_message_is_read_from_the_table(
        configure, postgresql, database, caplog, peer):
    configure('bus', cache_size=20_000, journal_timeout=300, select_timeout=1)
    listen(database)
    first, = publish(database, 'c', {})
    postgresql.execute(INSERT % 'garbage"', database)
    sent = [first] + publish(
        database, 'c', *({'text': "x" * 1000} for _ in range(20)))
    publish(database, 'd', *({'text': "x" * 1000} for _ in range(20)))

    assert statistics(database)['retained'] < 20
    assert ids(drain(database, ['c'], 20, first)) == sent[1:]
    # The polls go to another process, which has just read the messages.
    other = peer(cache_size=20_000)
    assert ids(other.call('drain', database, ['c'], 20, first)) == sent[1:]
    # No message is after the last one. A message that is published then
    # arrives.
    with Polls(database, ['c'], 3, sent[-1]) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 3)
        new = publish(database, 'c', {})
    assert ids(r['message'] for r in polls.results) == new * 3
    assert statistics(database)['evicted'] == 0

    # Even the ids of the messages exceed the limit.
    publish(database, 'd', *({'text': "x" * 1000} for _ in range(80)))
    wait_until(lambda: "cache_size" in ' '.join(caplog.messages))
    assert f"the bus on '{database}' has evicted " in ' '.join(
        caplog.messages)
    assert statistics(database)['evicted'] >= 20


def test_commit_that_waits_too_long_fails(postgresql, database):
    sent = publish(database, 'c', {})
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.execute('SELECT pg_advisory_lock(1717658484, 1)')
        started = time.monotonic()
        with pytest.raises(backend.DatabaseOperationalError) as error:
            publish(database, 'c', {})
    assert 8 < time.monotonic() - started < 60
    assert "lock timeout" in str(error.value)

    sent += publish(database, 'c', {})
    assert ids(drain(database, ['c'], 2)) == sent


@pytest.mark.one_series
def test_wire_is_the_same_with_the_journal(database, postgresql):
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.listen('bus', 'bus.part')
        publish(database, 'é"\\', {'text': "é\u2028\0"})
        publish(database, 'c', {'text': "x" * 8000})
        (_, small), (channel, number) = wire.receive(2)
    small = json.loads(small)
    message_id = small['message'].pop('message_id')
    assert small.pop('seq') + 1 == int(number)
    assert [[str(small.pop('table'))]] == postgresql.execute(
        f"SELECT '{TABLE}'::regclass::oid", database)
    assert small == json.loads(
        payload('é"\\', {'text': "é\u2028\0"}))
    assert message_id
    assert channel == 'bus.part'


def test_channel_with_a_control_character_is_refused(database):
    from trytond.bus import Bus
    with Transaction().start(database, 0):
        for channel in ['a\0b', 'a\nb', 'a\x85']:
            with pytest.raises(ValueError, match="control characters, not 'a"):
                Bus.publish(channel, {})
        Bus.publish('c', {})
    assert drain(database, ['c', 'a\0b'], 1)


@pytest.mark.one_series
def test_journal_survives_dump_and_restore(
        postgresql, database, tmp_path, peer):
    listen(database)
    kept = publish(database, 'c', {'n': 1}, {'n': 2})
    postgresql.dump(database, tmp_path / 'dump')
    lost = publish(database, 'c', *({} for _ in range(20)))
    assert ids(drain(database, ['c'], 22)) == kept + lost

    with Polls(database, ['c'], 3, lost[-1]) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 3)
        postgresql.drop_database(database)
        # For this process it is another database from now on.
        polls.join(60)
    assert not any(r['message'] for r in polls.results)
    postgresql.create_database(database)
    postgresql.restore(database, tmp_path / 'dump')
    # The number was used before.
    new = publish_when_there(database)

    assert ids(drain(database, ['c'], 3, lost[-1])) == kept + new
    assert ids(peer().call('drain', database, ['c'], 3, lost[-1])) == (
        kept + new)


@pytest.mark.one_series
def test_numbers_go_on_in_a_clone(postgresql, database):
    sent = publish(database, 'c', {}, {})
    assert ids(drain(database, ['c'], 2)) == sent
    clone = database + '_clone'
    stop_listener(database)
    backend.Database(database).close()
    postgresql.create_database(clone, database)
    try:
        sent += publish(clone, 'c', {})
        assert ids(drain(clone, ['c'], 3)) == sent
        numbers = [number for number, _ in rows(postgresql, clone)]
        assert sorted(set(numbers)) == numbers
    finally:
        stop_listener(clone)
        backend.Database(clone).close()
        postgresql.drop_database(clone)


def publish_when_there(database):
    "Publish as soon as the database can be reached again"
    sent = []

    def try_again():
        try:
            sent.extend(publish(database, 'c', {'n': 'new'}))
        except backend.DatabaseOperationalError:
            return False
        return True

    wait_until(try_again, 60)
    return sent


def test_update_of_the_database_leaves_the_journal_alone(
        postgresql, database):
    from support.server import create_tryton
    publish(database, 'c', {}, {})
    before = rows(postgresql, database)

    create_tryton(
        {'database': {'uri': postgresql.uri}, 'bus': {'journal': True}},
        database)

    assert rows(postgresql, database) == before
    sent = publish(database, 'c', {})
    assert ids(drain(database, ['c'], 3))[-1:] == sent


def test_full_disk_fails_the_transaction_and_nothing_else(
        postgresql, database, small_disk):
    data = small_disk.path / 'data'
    data.mkdir(mode=0o777)
    postgresql.own(data)
    space = 'space_' + database
    postgresql.execute(f"CREATE TABLESPACE {space} LOCATION '{data}'")
    listen(database)
    postgresql.execute(
        f'ALTER TABLE {TABLE} SET TABLESPACE {space}', database)
    sent = publish(database, 'c', {}, {})
    small_disk.fill()
    with pytest.raises(backend.DatabaseOperationalError, match="space left"):
        for _ in range(100):
            sent += publish(database, 'c', {'text': random_text(500_000)})
    small_disk.free()
    sent += publish(database, 'c', {'text': random_text(500_000)})

    assert ids(drain(database, ['c'], len(sent))) == sent
    stop_listener(database)
    assert ids(drain(database, ['c'], len(sent))) == sent
    postgresql.execute(
        f'ALTER TABLE {TABLE} SET TABLESPACE pg_default', database)
    postgresql.execute('CHECKPOINT')
    postgresql.execute(f'DROP TABLESPACE {space}')


def random_text(size):
    "Return a text that can't be compressed"
    return base64.b64encode(random.randbytes(size * 3 // 4)).decode()


ALONE = '''
import logging
import sys

from support.bus import drain, listen, publish

logging.basicConfig(level=logging.ERROR, format='%(message)s')
listen(sys.argv[1])
sent, = publish(sys.argv[1], 'c', {})
message, = drain(sys.argv[1], ['c'], 1)
assert message['message_id'] == sent
'''


def test_role_without_rights_gets_the_command_to_run(
        postgresql, database, limited, tmp_path):
    alone = run_python(ALONE, limited, database)

    assert alone.returncode == 0, alone.stderr
    assert "the role may not make the table" in alone.stderr
    assert "that 'trytond-bus --journal-sql' prints" in alone.stderr
    assert "continues without the journal" in alone.stderr

    statements = tmp_path / 'journal.sql'
    statements.write_text(journal_sql(limited))
    postgresql.restore(database, statements)
    alone = run_python(ALONE, limited, database)
    assert alone.returncode == 0, alone.stderr
    assert alone.stderr == ''
    assert len(rows(postgresql, database)) >= 2


def test_role_that_may_not_use_the_table_is_told_so(
        postgresql, database, limited):
    publish(database, 'c', {})
    postgresql.execute(
        f'REVOKE ALL ON {TABLE} FROM {limited["database"]["uri"][13:]}'
        .split('@')[0], database)

    alone = run_python(ALONE, limited, database)

    assert alone.returncode == 0, alone.stderr
    assert f"the role may not use the table {TABLE}" in alone.stderr


def test_bus_server_does_not_start_without_the_rights(
        postgresql, database, limited):
    process = bus_server(limited, '-d', database)

    assert process.returncode == 1
    assert process.stderr.endswith(
        f"trytond-bus: error: the journal of the bus on '{database}' cannot "
        f"be used: the role may not make the table {TABLE}; let the owner "
        "of the database run the statements that 'trytond-bus --journal-sql' "
        "prints\n")


def test_bus_server_starts_while_the_database_is_away(tmp_path):
    with BusServer(tmp_path, {
                'database': {
                    'uri': f'postgresql://postgres@127.0.0.1:{free_port()}'},
                'bus': {'journal': True},
                }, ['away', 'also_away']) as server:
        assert server.metric('draining') == 0
        server.terminate()


def journal_sql(sections):
    "Return what trytond-bus --journal-sql prints"
    process = bus_server(sections, '--journal-sql')
    assert process.returncode == 0, process.stderr
    return process.stdout


def bus_server(sections, *args):
    "Run the command trytond-bus"
    return run_python(
        "import os, sys; from trytond_fastbus.cli import main; "
        "main(['-c', os.environ['TRYTOND_CONFIG'], *sys.argv[1:]])",
        sections, *args)
