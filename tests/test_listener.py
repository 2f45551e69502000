"""A listener ends once nobody polls, and never while somebody relies on it."""
import logging
import os
import threading

import pytest
from support import wait_until
from support.bus import configured, drain, listen, publish, stop_listener
from trytond_fastbus import Bus, replay, settings


def listening(database):
    "What listens to the database"
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


def test_poll_after_somebody_dropped_the_listener_starts_another(database):
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
        # As after a bell and a notification at the same time
        one.on_readable()
        is_over.set()

    monkeypatch.setattr(one._source, 'receive', recorded)
    one._loop.call(ring_and_receive)
    assert is_over.wait(60)

    wait_until(lambda: one._state == 'listening')
    assert users and 'bus-listener' not in users
