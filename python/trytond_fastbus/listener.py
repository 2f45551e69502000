"""Listening to what is published in a database.

There is one listener for each process and database, a thread that the first
subscription starts and that ends `[database] timeout` seconds after the last
one.
"""
import logging
import math
import os
import random
import selectors
import threading
import time
from contextlib import contextmanager
from functools import partial

from trytond import backend

from . import _native, coroutine, journal, settings
from .replay import Replay

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Seconds between two tries to connect
RETRY_MIN, RETRY_MAX = .1, 30


def ensure(bus, database):
    "Have the database listened to from now on"
    pid = os.getpid()
    with bus._queues_lock[pid]:
        queue = bus._queues.get((pid, database))
        if not queue:
            # What is wrong with it is said here, rather than in the thread.
            settings.database_timeout()
            listener = threading.Thread(
                target=bus._listen, args=(database,), daemon=True)
            queue = bus._queues[pid, database] = {
                'timeout': math.inf,
                'listener': listener,
                'bus': _native.DatabaseBus(
                    database,
                    settings.cache_timeout(), settings.cache_size(),
                    settings.message_size(),
                    settings.journal_timeout() if journal.of(database)
                    else None),
                }
            try:
                listener.start()
            except BaseException:
                del bus._queues[pid, database]
                raise
        # When somebody asked last is known to the bus. Others may set an
        # earlier end, as trytond's tests do.
        queue['timeout'] = math.inf
        queue['bus'].listen()


def part_channel(bus):
    """The channel of payloads that are too large for one NOTIFY: their parts,
    or the number that they have in the journal"""
    return bus._channel + '.part'


def deliver(bus, database, payloads):
    "Put payloads on the bus of this process, if it is subscribed to"
    key = os.getpid(), database
    queue = bus._queues.get(key)
    if queue and not _ended(bus, key, queue):
        _put(database, queue, [(False, payload) for payload in payloads])


def ring(bus, database):
    "Have the journal looked into, if the bus of this process is subscribed to"
    queue = bus._queues.get((os.getpid(), database))
    if queue:
        queue['bus'].ring()


def listen(bus, database):
    "Put the notifications of the database on the bus until nobody subscribes"
    key = os.getpid(), database
    queue = bus._queues.get(key)
    try:
        _listen(bus, key, queue)
    except BaseException:
        # Should it be killed, the next subscription starts another one.
        with bus._queues_lock[key[0]]:
            if bus._queues.get(key) is queue:
                del bus._queues[key]
                queue['bus'].abandon()
        raise


def _listen(bus, key, queue):
    database = key[1]
    ended = partial(_ended, bus, key, queue)
    retry, lost = RETRY_MIN, None
    while queue and not ended():
        try:
            db = backend.Database(database)
            with _source(bus, db, queue) as receive:
                if not receive:
                    # Transactions of this process deliver to it.
                    return
                queue['bus'].connected()
                _log_start(database, queue, lost)
                retry, lost = RETRY_MIN, None
                receive(ended)
        except Exception as error:
            if lost is None:
                lost = time.monotonic()
                queue['bus'].disconnected()
                logger.warning(
                    "bus listener on '%s' has no connection: %s",
                    database, str(error).strip(), exc_info=not isinstance(
                        error, (backend.DatabaseOperationalError, OSError)))
            else:
                logger.info(
                    "bus listener on '%s' can not connect: %s",
                    database, str(error).strip())
            _pause(retry, queue)
            retry = min(retry * 2, RETRY_MAX)


def _log_start(database, queue, lost):
    if lost is None:
        logger.info("start listener for '%s'", database)
    else:
        logger.warning(
            "bus listener on '%s' is back after %.1f seconds, messages of "
            "that time %s", database, time.monotonic() - lost,
            "were read from the journal" if queue['bus'].has_journal
            else "are lost")


def _timeout(queue):
    "Seconds without a subscription after which the listener ends"
    if queue['timeout'] <= time.time():
        return 0
    return settings.database_timeout()


def _expired(queue):
    return queue['bus'].is_idle(_timeout(queue))


def _ended(bus, key, queue):
    "Forget the queue if nobody has subscribed for the time-out"
    if bus._queues.get(key) is queue and not _expired(queue):
        return False
    with bus._queues_lock[key[0]]:
        if bus._queues.get(key) is not queue:
            # Somebody has dropped it, and another listener may be there.
            queue['bus'].abandon()
            return True
        # A subscription may have arrived in between.
        if not queue['bus'].remove(_timeout(queue)):
            return False
        del bus._queues[key]
        return True


def _pause(seconds, queue):
    "Wait a while, at random so that many processes do not all come at once"
    end = time.monotonic() + seconds * random.uniform(.5, 1)
    while (left := end - time.monotonic()) > 0 and not _expired(queue):
        time.sleep(min(left, 1))


@contextmanager
def _source(bus, db, queue):
    """Connect to where the messages come from; gives what receives them until
    a function says that it is to end, or None if there is nothing"""
    table = journal.of(db.name, bus._channel)
    if not db.has_channel() and not table:
        yield None
        return
    connection = db.get_connection(autocommit=True)
    try:
        if db.has_channel():
            limit = partial(time_limit, connection)
            with _listening(bus, connection):
                # Before it is read: what is committed meanwhile is notified.
                replay = table and Replay.start(
                    table, connection, db.name, queue['bus'], limit)
                yield partial(
                    _receive, bus, db.name, queue, connection, replay)
        else:
            replay = Replay.start(table, connection, db.name, queue['bus'])
            yield replay and replay.watch
    except BaseException:
        connection.close()
        raise
    finally:
        db.put_connection(connection)
        if not db.has_channel():
            db.close()


@contextmanager
def _listening(bus, connection):
    channels = [bus._channel, part_channel(bus)]
    cursor = connection.cursor()
    with time_limit(connection):
        for channel in channels:
            cursor.execute('LISTEN "%s"' % channel)
    yield
    with time_limit(connection):
        # The next user of the connection should not get them.
        for channel in channels:
            cursor.execute('UNLISTEN "%s"' % channel)


def _receive(bus, database, queue, connection, replay, ended):
    pid, cursor = os.getpid(), connection.cursor()
    take = partial(_take, bus, database, queue, connection, replay)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        bell = selector.register(queue['bus'], selectors.EVENT_READ)
        while not ended():
            take()
            # Any that come with the answer to a query, be it LISTEN or one of
            # those below, are taken above before it is waited for more.
            readable = selector.select(timeout=settings.select_timeout())
            coroutine.stay_in_child(pid)
            if replay:
                if bell in (key for key, _ in readable):
                    replay.look(take)
                replay.purge()
            if not readable:
                # The answer tells whether PostgreSQL is still there.
                with time_limit(connection):
                    cursor.execute('SELECT 1')
                queue['bus'].expire()
                # trytond closes the pool of a database that nobody uses.
                backend.Database(database)


def _take(bus, database, queue, connection, replay):
    "Put the notifications that are there on the bus"
    part = part_channel(bus)
    taken = []
    try:
        for channel, payload in received(connection):
            taken.append((channel == part, payload))
    finally:
        # Those that came before the connection broke count as well.
        notifications = []
        for is_part, payload in taken:
            if replay and is_part and payload.isdigit():
                # The message itself is too large, and only in the journal.
                _put(database, queue, notifications)
                notifications = []
                replay.read(until=int(payload))
            else:
                notifications.append((is_part, payload))
        _put(database, queue, notifications)


def _put(database, queue, notifications):
    for reason in queue['bus'].receive(notifications):
        logger.error(
            "bus listener on '%s' skipped a notification: %s",
            database, reason)


def received(connection):
    "Take the notifications that are there: of each its channel and payload"
    if callable(connection.notifies):
        for notification in connection.notifies(timeout=0):
            yield notification.channel, notification.payload
    else:
        try:
            connection.poll()
        finally:
            notifications = connection.notifies[:]
            del connection.notifies[:]
            for notification in notifications:
                yield notification.channel, notification.payload


@contextmanager
def time_limit(connection):
    """Break the connection when PostgreSQL does not answer in time.

    The drivers have no limit of their own for a peer that has gone silent.
    """
    fd = os.dup(connection.fileno())
    try:
        deadline = _native.watch(fd, settings.keep_alive_timeout())
        try:
            yield
        finally:
            if deadline.lift():
                logger.warning(
                    "PostgreSQL did not answer in %s seconds",
                    settings.keep_alive_timeout())
    finally:
        os.close(fd)
