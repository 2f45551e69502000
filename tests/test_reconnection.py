"""A lost connection is noticed and reopened, and waiters stay waiting."""
import logging
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from support import wait_until
from support.bus import (
    Polls,
    Wire,
    drain,
    end_listener,
    listen,
    listener_pid,
    payload,
    publish,
    statistics,
    stop_listener,
)
from support.proxy import Proxy
from trytond import backend


@pytest.fixture
def waiting(configure, database):
    "Clients that wait on the channel c of a database with a listener"
    # No poll times out.
    configure('bus', select_timeout=60, long_polling_timeout=300)
    listen(database)
    with Polls(database, ['c'], 20) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 20)
        yield polls


def publish_until(database, condition, deadline=60, publish=publish):
    """Publish repeatedly until the condition is true, because messages in a
    gap are lost"""
    def try_again():
        try:
            publish(database, 'c', {'type': 'test'})
        except backend.DatabaseOperationalError:
            pass  # the server is not there yet
        return condition()

    wait_until(try_again, deadline)


@contextmanager
def down(postgresql, seconds=0):
    """Crash the server, and keep it down for a time after the block. This
    sleep is the fault itself, and does not wait for anything."""
    postgresql.stop('immediate')
    try:
        yield
        time.sleep(seconds)
    finally:
        postgresql.start()


def gaps(database):
    return statistics(database)['gaps']


def test_listener_terminated_all_the_time(configure, postgresql, database):
    configure('bus', select_timeout=60, long_polling_timeout=300)
    listen(database)
    terminated, stop = [], threading.Event()

    def terminate_again():
        while not stop.wait(.2):
            terminated.append(end_listener(postgresql, database))

    killer = threading.Thread(target=terminate_again)
    killer.start()
    try:
        end = time.monotonic() + 5
        rounds = 0
        while time.monotonic() < end or rounds < 10:
            rounds += 1
            channel = f'round:{rounds}'
            with Polls(database, [channel], 5) as polls:
                def delivered(channel=channel, polls=polls):
                    publish(database, channel, {'type': 'test'})
                    return len(polls.results) == 5

                wait_until(delivered, 60)
            assert all(
                result['channel'] == channel for result in polls.results)
    finally:
        stop.set()
        killer.join()

    assert sum(terminated) >= 10
    assert gaps(database) >= 5
    listen(database)
    sent = publish(database, 'after', *({'type': 'test'} for _ in range(500)))
    assert sent == [
        message['message_id'] for message in drain(database, ['after'], 500)]


def test_all_is_delivered_after_each_healing(
        configure, postgresql, database):
    configure('bus', select_timeout=60, long_polling_timeout=300)
    listen(database)
    last = None
    for number in range(1, 8):
        assert end_listener(postgresql, database)
        wait_until(lambda number=number: gaps(database) == number)
        listen(database)
        sent = publish(database, 'c', *({'type': 'x' * 500},) * 100)

        got = [m['message_id'] for m in drain(database, ['c'], 100, last)]

        assert got[-1] == sent[-1] and len(set(got)) == 100
        last = got[-1]


@pytest.mark.parametrize('seconds', [0, 3])
def test_waiters_survive_a_crash_of_the_server(
        postgresql, database, waiting, seconds):
    with down(postgresql, seconds):
        wait_until(lambda: gaps(database) == 1)
    assert not waiting.results and not waiting.errors

    publish_until(database, lambda: waiting.results)
    waiting.join(60)
    assert statistics(database)['waiting'] == 0
    assert all(result['channel'] == 'c' for result in waiting.results)


def test_gap_is_counted_and_logged(caplog, postgresql, database, waiting):
    caplog.set_level(logging.INFO, 'trytond.bus')
    assert gaps(database) == 0

    assert end_listener(postgresql, database)
    wait_until(lambda: gaps(database) == 1)
    publish_until(database, lambda: waiting.results)
    waiting.join(60)

    warnings = [
        record.getMessage() for record in caplog.records
        if record.name == 'trytond.bus' and record.levelname == 'WARNING']
    assert len(warnings) == 2, warnings
    assert warnings[0].startswith(
        f"bus listener on '{database}' has no connection: ")
    assert warnings[1].startswith(f"bus listener on '{database}' reconnected ")
    assert warnings[1].endswith("messages of that time are lost")
    # An administrator needs no traceback for a server that is down.
    assert not any(record.exc_info for record in caplog.records)
    # The text of the driver has several lines.
    assert not any('\n' in line for line in warnings)
    assert gaps(database) == 1


def test_listener_may_start_while_the_server_is_down(
        configure, postgresql, database):
    configure('bus', long_polling_timeout=300)
    with ExitStack() as stack:
        with down(postgresql, 1):
            polls = stack.enter_context(Polls(database, ['c'], 5))
            wait_until(lambda: statistics(database)['waiting'] == 5)

        publish_until(database, lambda: polls.results)
    assert all(result['channel'] == 'c' for result in polls.results)


@pytest.mark.parametrize('cut', [False, True])
def test_half_open_connection_is_noticed(
        database, configure, caplog, postgresql, cut):
    with Proxy(postgresql.port) as proxy, \
            Wire(f'{postgresql.uri}/{database}') as wire:
        def send(database, channel, message):
            wire.notify([
                    ('bus', payload(channel, {'message_id': 1, **message}))])

        configure(
            'database', uri=f'postgresql://postgres@127.0.0.1:{proxy.port}')
        configure(
            'bus', select_timeout=1, keep_alive_timeout=1,
            long_polling_timeout=300)
        listen(database)
        with Polls(database, ['c'], 5) as polls:
            wait_until(lambda: statistics(database)['waiting'] == 5)
            proxy.freeze()
            wait_until(lambda: gaps(database) == 1)
            assert not polls.results
            if cut:
                # Connections that are opened meanwhile are lost as well.
                wait_until(lambda: proxy.cut(), 60)
            proxy.thaw()

            publish_until(database, lambda: polls.results, publish=send)
        assert all(result['channel'] == 'c' for result in polls.results)
        assert "PostgreSQL did not answer within 1 seconds" in caplog.messages
        stop_listener(database)
        backend.Database(database).close()


def test_connection_is_none_of_the_pool_and_is_closed_at_the_end(
        postgresql, configure, database):
    configure('bus', select_timeout=60)

    def sessions():
        return postgresql.execute(
            f'SELECT pid FROM pg_stat_activity WHERE pid = {pid}')

    listen(database)
    pid = listener_pid(database)
    assert len(sessions()) == 1
    backend.Database(database).close()
    assert len(sessions()) == 1

    stop_listener(database)

    wait_until(lambda: not sessions())
