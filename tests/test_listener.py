"""A listener ends when there are no polls, and never while it is needed."""
import logging
import os
import threading
import time
import uuid

import pytest
import trytond_fastbus
from support import wait_until
from support.bus import (
    Polls,
    Wire,
    configured,
    drain,
    listen,
    payload,
    publish,
    statistics,
    stop_listener,
)
from support.server import run_python
from trytond import backend
from trytond_fastbus import Bus, replay, settings, workers
from trytond_fastbus.source import postgresql as postgresql_source


def listening(database):
    "The listener of the database"
    return Bus._queues[os.getpid(), database]['listener']


def test_poll_that_is_answered_at_once_keeps_the_listener(database):
    listen(database)
    publish(database, 'c', {'type': 'test'})
    drain(database, ['c'], 1)
    bus = Bus._queues[os.getpid(), database]['bus']
    wait_until(lambda: bus.is_idle(.5))

    def is_kept():
        drain(database, ['c'], 1)
        return not bus.is_idle(.5)

    wait_until(is_kept)


def test_time_out_is_that_of_the_configuration_now(configure, database):
    listen(database)
    thread = listening(database)
    assert thread.is_alive()
    configure('database', timeout=1)
    wait_until(lambda: not thread.is_alive(), 60)
    assert not thread.is_alive()
    assert (os.getpid(), database) not in Bus._queues


@pytest.mark.skipif(
    not settings.MODULE,
    reason="before 7.8 it is read when trytond.bus is imported")
def test_time_out_that_is_no_number_is_refused(database):
    with configured('database', timeout='soon'), \
            pytest.raises(ValueError, match="timeout = soon"):
        Bus.subscribe(database, ['c'])
    assert (os.getpid(), database) not in Bus._queues


def test_poll_with_too_many_channels_is_refused(database):
    with pytest.raises(ValueError, match='more than 10000 channels'):
        Bus.subscribe(database, map(str, range(10_001)))


def test_poll_after_the_end_starts_another_listener(database):
    threads = set()
    for _ in range(3):
        listen(database)
        threads.add(listening(database))
        stop_listener(database)
    assert len(threads) == 3


@pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_poll_after_the_death_of_the_listener_starts_another(
        configure, monkeypatch, database):
    configure('bus', select_timeout=60)
    listen(database)
    dying = listening(database)
    loop, = (
        thread for thread in threading.enumerate()
        if thread.name == 'bus-listener')

    def die(*args):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(replay, 'put', die)
        publish(database, 'c', {'type': 'lost'})
        dying.join(60)
        loop.join(60)
    assert not dying.is_alive() and not loop.is_alive()

    listen(database)
    assert listening(database) is not dying


def test_poll_after_the_listener_was_dropped_starts_another(database):
    listen(database)
    dropped = Bus._queues.pop((os.getpid(), database))
    publish(database, 'c', {'type': 'test'})
    dropped['listener'].join(60)
    assert not dropped['listener'].is_alive()

    listen(database)
    assert listening(database) is not dropped['listener']


def test_listener_that_can_not_start_is_tried_again(monkeypatch, database):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                Bus.subscribe(database, ['c'])
    listen(database)


@pytest.mark.parametrize('level', ['DEBUG', 'INFO', 'WARNING'])
def test_poll_is_logged_as_by_stock(level, caplog, database):
    listen(database)
    publish(database, 'c', {'type': 'test'})
    drain(database, ['c'], 1)
    caplog.set_level(getattr(logging, level), 'trytond.bus')
    caplog.clear()

    response = Bus.subscribe(database, ['c', 'd'])

    messages = [
        (record.levelname, record.getMessage()) for record in caplog.records
        if record.name == 'trytond.bus']
    expected = [
        ('INFO', f"subscribe to 'c,d' on '{database}'"),
        ('DEBUG', f"Bus: {response!r}")]
    assert messages == expected[:{'DEBUG': 2, 'INFO': 1, 'WARNING': 0}[level]]


def test_method_that_is_put_into_the_class_makes_the_response(
        monkeypatch, database):
    listen(database)
    publish(database, 'c', {'type': 'test'})
    drain(database, ['c'], 1)
    monkeypatch.setattr(Bus, 'create_response', lambda *args: args)

    channel, message = Bus.subscribe(database, ['c'])

    assert (channel, message['type']) == ('c', 'test')


def test_connection_is_used_by_one_thread_at_a_time(
        configure, monkeypatch, database):
    configure('bus', select_timeout=60)
    listen(database)
    one, users, is_over = listening(database), [], threading.Event()
    receive = one._source.receive

    def recorded():
        users.append(threading.current_thread().name)
        return receive()

    def ring_and_receive():
        one.on_ring()
        # A bell and a notification at the same time have this effect.
        one.on_readable()
        is_over.set()

    monkeypatch.setattr(one._source, 'receive', recorded)
    one._loop.call(ring_and_receive)
    assert is_over.wait(60)

    wait_until(lambda: one._state == 'listening')
    assert users and 'bus-listener' not in users


def test_dropped_database_is_forgotten_and_found_again(
        postgresql, tryton_template, configure, database):
    configure('bus', long_polling_timeout=300)
    listen(database)
    with Polls(database, ['c'], 3) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 3)
        postgresql.drop_database(database)
        polls.join(60)
    assert not any(result['message'] for result in polls.results)
    assert database not in trytond_fastbus.statistics()
    assert (os.getpid(), database) not in Bus._queues

    # trytond's own pool does not notice.
    backend.Database(database).close()
    postgresql.create_database(database, tryton_template)
    listen(database)


def test_database_that_never_was_ends_its_poll(configure):
    configure('bus', long_polling_timeout=300)
    assert Bus.subscribe('never_was', ['c'])['message'] is None
    assert 'never_was' not in trytond_fastbus.statistics()


def test_id_that_another_process_knows_is_not_unknown(
        configure, monkeypatch, database):
    configure('bus', select_timeout=60)
    listen(database)
    publish(database, 'c', {'n': 0})
    drain(database, ['c'], 1)
    one = listening(database)
    # As if the notifications were late
    monkeypatch.setattr(one, 'on_readable', lambda: time.sleep(.01))
    is_deaf = threading.Event()

    def deafen():
        one._loop.unwatch(one._source.fileno())
        one._loop.watch(one, one._source.fileno())
        is_deaf.set()

    one._loop.call(deafen)
    assert is_deaf.wait(60)
    _, known, following = publish(database, 'c', {'n': 1}, {'n': 2}, {'n': 3})

    message = Bus.subscribe(database, ['c'], known)['message']

    assert message['message_id'] == following
    # A message that no process knows is unknown after a look.
    message = Bus.subscribe(database, ['c'], 'never published')['message']
    assert message['n'] == 0


def test_time_out_counts_from_the_end_of_the_last_poll(configure, database):
    configure('database', timeout=1)
    configure('bus', long_polling_timeout=3)
    listen(database)
    one = listening(database)
    assert Bus.subscribe(database, ['c'])['message'] is None
    sent = publish(database, 'c', {})
    assert [m['message_id'] for m in drain(database, ['c'], 1)] == sent
    assert listening(database) is one


@pytest.mark.parametrize('interval', [.1, 60])
def test_idle_sessions_are_not_ended(
        postgresql, configure, database, interval):
    version, = postgresql.execute('SHOW server_version_num')[0]
    if int(version) < 140000:
        pytest.skip("idle_session_timeout is of PostgreSQL 14")
    configure('bus', select_timeout=60)
    postgresql.execute(
        f'ALTER DATABASE {database} SET idle_session_timeout TO 1000')
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.execute('SET idle_session_timeout TO 0')
        listen(database)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            # The query does not belong to the listener.
            wire.notify([('bus', payload('c', {'message_id': 1}))])
            time.sleep(min(interval, 3))
    assert statistics(database)['gaps'] == 0


def test_descriptors_that_run_out_cost_no_connection(postgresql, database):
    process = run_python('''
import errno, os, resource, sys, uuid
from trytond_fastbus import Bus
from support.bus import drain, listen, publish, statistics
database, = sys.argv[1:]
listen(database)
publish(database, 'c', {'type': 'x'})
drain(database, ['c'], 1)
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))

def use_up():
    # Other threads may have closed some.
    try:
        while True:
            os.dup(0)
    except OSError as error:
        assert error.errno == errno.EMFILE, error

for _ in range(3):
    use_up()
    # Each has it look.
    assert Bus.subscribe(database, ['c'], str(uuid.uuid4()))['message']
resource.setrlimit(resource.RLIMIT_NOFILE, before)
assert statistics(database)['gaps'] == 0
''', {'database': {'uri': postgresql.uri}}, database, timeout=60)
    assert (process.returncode, process.stderr) == (0, '')


@pytest.fixture
def databases(postgresql):
    "The names of some databases without a table"
    names = [f'many_{uuid.uuid4().hex[:8]}' for _ in range(12)]
    for name in names:
        postgresql.create_database(name)
    yield names
    for name in names:
        stop_listener(name)
        postgresql.drop_database(name)


def test_many_databases_share_the_threads(
        postgresql, configure, monkeypatch, databases):
    configure('bus', long_polling_timeout=0)
    for name in databases:
        Bus.subscribe(name, ['c'])
    wait_until(lambda: all(
            statistics(name)['listening'] for name in databases))
    names = [thread.name for thread in threading.enumerate()]
    assert names.count('bus-listener') == 1
    assert names.count('bus-worker') <= workers.WORKERS
    (sessions,), = postgresql.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'many%'")
    assert int(sessions) == len(databases)

    # A database that hangs does not delay the others.
    hung, *others = databases
    is_over = threading.Event()
    monkeypatch.setattr(listening(hung)._source, 'look', is_over.wait)
    try:
        listening(hung).bell.ring()
        for name in others:
            with Wire(f'{postgresql.uri}/{name}') as wire:
                wire.notify([('bus', payload('c', {'message_id': 1}))])
            last = uuid.uuid4().hex
            wait_until(lambda name=name, last=last: Bus.subscribe(
                    name, ['c'], last)['message'])
    finally:
        is_over.set()


def test_warning_names_the_session_that_holds_the_queue(
        caplog, monkeypatch, postgresql, database):
    monkeypatch.setattr(postgresql_source, 'QUEUE_WARN', 0)
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.execute('LISTEN held')
        wire.execute('BEGIN')
        (pid,) = wire.query('SELECT pg_backend_pid()')
        listen(database)

        def has_warned():
            return [
                message for message in caplog.messages
                if "queue of notifications" in message]

        wait_until(has_warned)
    assert f'pid {pid} ' in has_warned()[0]
    assert len(has_warned()) == 1
    assert 0 <= statistics(database)['queue_usage'] <= 1
