"""Connections to PostgreSQL outside of trytond's pool."""
import logging
import os
import sys
from contextlib import contextmanager

from trytond import backend

from . import _native, coroutine, settings
from .logs import in_a_line

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Time limit in seconds for an attempt to connect that is repeated. With a
# longer one the listener would notice later that the server is back
CONNECT_TIMEOUT = 2


class Dropped(Exception):
    "The database does not exist"


def connect(name, timeout=None):
    """Connect to a database of PostgreSQL with trytond's parameters, outside
    of its pool.

    Raises Dropped if the database does not exist.
    """
    limit = settings.keep_alive_timeout()
    if timeout:
        limit = min(limit, timeout)
    try:
        with coroutine.time_limit(limit + 1):
            return _connect(name, limit)
    except backend.DatabaseOperationalError as error:
        # The drivers give no error code here, and messages are translated.
        if name in str(error) and not _exists(name):
            raise Dropped(in_a_line(error)) from error
        raise


def _connect(name, limit):
    parameters = backend.Database._connection_params(name)
    if 'PGCONNECT_TIMEOUT' not in os.environ and not any(
            'connect_timeout=' in str(value) for value in parameters.values()):
        parameters['connect_timeout'] = max(round(limit), 1)
    # psycopg or psycopg2
    error = backend.DatabaseOperationalError
    driver = sys.modules[error.__module__.partition('.')[0]]
    connection = driver.connect(**parameters)
    try:
        connection.autocommit = True
    except BaseException:
        connection.close()
        raise
    return connection


def _exists(name):
    "Whether the server has this database; true if that can't be checked"
    try:
        connection = _connect(
            settings.config.get(
                'database', 'default_name', default='template1'),
            CONNECT_TIMEOUT)
    except backend.DatabaseOperationalError:
        return True
    try:
        cursor = connection.cursor()
        cursor.execute(
            'SELECT FROM pg_database WHERE datname = %s', (name,))
        return cursor.fetchone() is not None
    finally:
        connection.close()


@contextmanager
def time_limit(fd):
    """Break the connection with this descriptor if PostgreSQL does not answer
    in time.

    The drivers have no time limit of their own for a peer that stops
    answering.
    """
    try:
        # The driver may close its own descriptor, and the number may belong to
        # another connection when the watchdog shuts it down.
        fd = os.dup(fd)
    except OSError as error:
        # That is no reason to close a working connection.
        logger.debug("a query has no time limit: %s", error)
        yield
        return
    try:
        deadline = _native.watch(fd, settings.keep_alive_timeout())
        try:
            yield
        finally:
            if deadline.lift():
                logger.warning(
                    "PostgreSQL did not answer within %s seconds",
                    settings.keep_alive_timeout())
    finally:
        os.close(fd)


def received(connection):
    "Take the pending notifications, each as its channel and payload"
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
