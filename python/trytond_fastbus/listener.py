"""Listening to the notifications of a database.

There is one listener for each process and database, a thread that the first
subscription starts and that ends `[database] timeout` seconds after the last
one.
"""
import logging
import os
import random
import selectors
import threading
import time
from contextlib import contextmanager

from trytond import backend

from . import _native, coroutine, settings

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Seconds between two tries to connect
RETRY_MIN, RETRY_MAX = .1, 30


def ensure(bus, database, channels):
    "Have the database listened to from now on"
    pid = os.getpid()
    timeout = time.time() + settings.database_timeout()
    with bus._queues_lock[pid]:
        queue = bus._queues.get((pid, database))
        if queue:
            queue['timeout'] = timeout
        else:
            listener = threading.Thread(
                target=bus._listen, args=(database,), daemon=True)
            bus._queues[pid, database] = {
                'timeout': timeout,
                'listener': listener,
                'bus': _native.DatabaseBus(
                    database,
                    settings.cache_timeout(), settings.cache_size(),
                    settings.message_size()),
                }
            try:
                listener.start()
            except BaseException:
                del bus._queues[pid, database]
                raise
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "subscribe to '%s' on '%s'", ','.join(channels), database)


def part_channel(bus):
    "The channel for the parts of payloads that are too large for one NOTIFY"
    return bus._channel + '.part'


def deliver(bus, database, payloads):
    "Put payloads on the bus of this process, if it is subscribed to"
    key = os.getpid(), database
    queue = bus._queues.get(key)
    if queue and not _ended(bus, key, queue):
        _put(database, queue, [(False, payload) for payload in payloads])


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
        raise


def _listen(bus, key, queue):
    database = key[1]
    retry, lost = RETRY_MIN, None
    while queue and not _ended(bus, key, queue):
        try:
            db = backend.Database(database)
            if not db.has_channel():
                # Transactions of this process deliver to it.
                return
            with _listening(bus, db) as connection:
                queue['bus'].connected()
                if lost is None:
                    logger.info("start listener for '%s'", database)
                else:
                    logger.warning(
                        "bus listener on '%s' is back after %.1f seconds, "
                        "messages of that time are lost",
                        database, time.monotonic() - lost)
                retry, lost = RETRY_MIN, None
                _receive(bus, key, queue, connection)
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


def _expired(queue):
    return queue['timeout'] <= time.time() and not queue['bus'].waiting


def _ended(bus, key, queue):
    "Forget the queue if nobody has subscribed for the time-out"
    if bus._queues.get(key) is queue and not _expired(queue):
        return False
    with bus._queues_lock[key[0]]:
        if bus._queues.get(key) is not queue:
            # Somebody has dropped it, and another listener may be there.
            return True
        # A subscription may have arrived in between.
        if not _expired(queue):
            return False
        del bus._queues[key]
        queue['bus'].remove()
        return True


def _pause(seconds, queue):
    "Wait a while, at random so that many processes do not all come at once"
    end = time.monotonic() + seconds * random.uniform(.5, 1)
    while (left := end - time.monotonic()) > 0 and not _expired(queue):
        time.sleep(min(left, 1))


@contextmanager
def _listening(bus, db):
    connection = db.get_connection(autocommit=True)
    try:
        channels = [bus._channel, part_channel(bus)]
        with _time_limit(connection):
            cursor = connection.cursor()
            for channel in channels:
                cursor.execute('LISTEN "%s"' % channel)
        yield connection
        with _time_limit(connection):
            # The next user of the connection should not get them.
            for channel in channels:
                cursor.execute('UNLISTEN "%s"' % channel)
    except BaseException:
        connection.close()
        raise
    finally:
        db.put_connection(connection)


def _receive(bus, key, queue, connection):
    part = part_channel(bus)
    cursor = connection.cursor()
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while not _ended(bus, key, queue):
            notifications = []
            try:
                for channel, payload in _notifications(connection):
                    notifications.append((channel == part, payload))
            finally:
                # Those that came before the connection broke count as well.
                _put(key[1], queue, notifications)
            # Any that come with the answer to a query, be it LISTEN or the
            # one below, are taken above before it is waited for more.
            readable = selector.select(timeout=settings.select_timeout())
            if os.getpid() != key[0]:
                # A greenlet, unlike a thread, goes on in the child of a
                # fork. The connection is the parent's: not even to close.
                coroutine.stay()
            if not readable:
                # The answer tells whether PostgreSQL is still there.
                with _time_limit(connection):
                    cursor.execute('SELECT 1')
                queue['bus'].expire()
                # trytond closes the pool of a database that nobody uses.
                backend.Database(key[1])


def _put(database, queue, notifications):
    for reason in queue['bus'].receive(notifications):
        logger.error(
            "bus listener on '%s' skipped a notification: %s",
            database, reason)


def _notifications(connection):
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
def _time_limit(connection):
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
