"""The connections by which the listener gets the messages of a database."""
import logging
import os
import random
import selectors
import sqlite3
import sys
import time
import uuid
from contextlib import contextmanager

from trytond import backend

from . import _native, coroutine, journal, settings
from .replay import Replay

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# That of the module belongs to the programs, which may set its seed.
_random = random.SystemRandom()

# Seconds that most attempts to connect may take: one that hangs would not
# notice that the server is back
CONNECT_TIMEOUT = 2

# Seconds between two looks for the commits of others, on SQLite
LOOK_EVERY = .05

# Seconds between two looks at whether the file is another one
LOOK_AT_FILE_EVERY = 1

# Seconds for which a query waits while another process writes, on SQLite
BUSY_TIMEOUT = 5

# The part of PostgreSQL's queue of notifications above which it is warned
QUEUE_WARN = .5


class Dropped(Exception):
    "The database does not exist"


class Deaf(Exception):
    "Notifications do not arrive by the connection"


def of(name):
    "The class of the source for a database, or None where there is none"
    if hasattr(backend.Database, '_connection_params'):
        return PostgreSQL
    # Without a journal, transactions of this process deliver to it.
    return SQLite if journal.of(name) else None


class PostgreSQL:
    """A connection to PostgreSQL of its own, which listens.

    The methods except receive may block.
    """

    # Whether the warning about the queue was logged
    _has_warned = False

    def __init__(self, channels, name, bus, connect_timeout):
        self._channel, self._part = self._channels = channels
        self._check = '%s.%s' % (self._channel, uuid.uuid4())
        self._name = name
        self._bus = bus
        self._replay = None
        self._queue_usage = 0
        self._connection = connect(name, connect_timeout)
        try:
            # One that the driver does not close: its number may become that
            # of another connection, which the watchdog would shut down.
            self._fd = os.dup(self._connection.fileno())
        except BaseException:
            self._connection.close()
            raise
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self):
        self._bus.begin_look()
        cursor = self._connection.cursor()
        self._check_listening(cursor)
        with self._limit():
            for channel in self._channels:
                cursor.execute('LISTEN "%s"' % channel)
        table = journal.of(self._name, self._channel)
        # Now that what is committed meanwhile is notified
        self._replay = table and Replay.start(
            table, self._connection, self._name, self._bus, self._limit)
        if not self._replay:
            self._bus.end_look()
        self._take()
        self._asked = time.monotonic()

    def _check_listening(self, cursor):
        "Raise Deaf unless a notification arrives"
        with self._limit():
            cursor.execute('LISTEN "%s"' % self._check)
            cursor.execute(
                'SELECT pg_backend_pid(), pg_notify(%s, %s)',
                (self._check, ''))
            pid, _ = cursor.fetchone()
        is_heard = self._take()
        if pid != self._connection.info.backend_pid:
            # Through a pooler it may have come only with the answer.
            other = connect(self._name)
            try:
                other.cursor().execute(
                    'SELECT pg_notify(%s, %s)', (self._check, ''))
            finally:
                other.close()
            is_heard = False
        end = time.monotonic() + settings.keep_alive_timeout()
        while not is_heard and (left := end - time.monotonic()) > 0:
            with selectors.DefaultSelector() as selector:
                selector.register(self, selectors.EVENT_READ)
                selector.select(left)
            is_heard = self._take()
        if not is_heard:
            raise Deaf(
                "a notification that the listener sent to itself has not come "
                "back in %s seconds: connect trytond to PostgreSQL itself, or "
                "through a pooler in session mode"
                % settings.keep_alive_timeout())
        with self._limit():
            cursor.execute('UNLISTEN "%s"' % self._check)

    def fileno(self):
        return self._fd

    @property
    def due(self):
        "The moment from which a look is due, though no poll wants one"
        interval = settings.select_timeout()
        if self._replay and self._queue_usage > QUEUE_WARN:
            # Rows may be committed without a notification.
            interval = min(interval, 1)
        # At random so that those of many databases spread
        return self._asked + interval * _random.uniform(.9, 1)

    def is_due(self):
        "Whether a look is needed at that moment"
        return True

    def receive(self):
        """Put the notifications that are there on the bus.

        Returns those for which receive_slowly is to be called.
        """
        return self._receive()[0]

    def receive_slowly(self, notifications):
        "Put notifications on the bus, where the journal has to be read first"
        self._replay.receive_slowly(notifications)
        self._take()

    def look(self):
        """Make a round trip: what was committed before is on the bus then.

        The answer also tells whether PostgreSQL is still there.
        """
        self._bus.begin_look()
        with self._limit():
            cursor = self._connection.cursor()
            # Without this call a queue that was full stays so.
            cursor.execute('SELECT pg_notification_queue_usage()')
            self._note_queue_usage(cursor)
        if self._replay:
            self._replay.look(self._take)
            self._replay.purge()
        else:
            self._take()
            self._bus.end_look()
        self._bus.expire()
        # What came with the answers to the last queries
        self._take()
        self._asked = time.monotonic()

    def close(self):
        self._connection.close()
        os.close(self._fd)

    def _take(self):
        "Receive what is there; whether the check was among it"
        rest, is_heard = self._receive()
        if rest:
            self._replay.receive_slowly(rest)
        return is_heard

    def _receive(self):
        taken, is_heard = [], False
        try:
            for channel, payload in received(self._connection):
                if channel == self._check:
                    is_heard = True
                else:
                    taken.append((channel == self._part, payload))
        finally:
            # Those that came before the connection broke count as well.
            if self._replay:
                rest = self._replay.receive(taken)
            else:
                put(self._name, self._bus, taken)
                rest = []
        return rest, is_heard

    def _note_queue_usage(self, cursor):
        usage, = cursor.fetchone()
        self._queue_usage = usage
        self._bus.set_queue_usage(usage)
        cls = type(self)
        if usage < QUEUE_WARN:
            cls._has_warned = False
        elif not cls._has_warned:
            cls._has_warned = True
            cursor.execute(
                "SELECT pid, usename, datname, application_name, xact_start "
                "FROM pg_stat_activity WHERE xact_start IS NOT NULL "
                "AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 1")
            session = cursor.fetchone()
            logger.warning(
                "PostgreSQL's queue of notifications is %d %% full, and "
                "commits fail once it is full: end the session that holds it, "
                "%s", usage * 100, session and "probably pid %s of the user "
                "'%s' on '%s' (%s), in a transaction since %s" % session
                or "which has listened and not ended its transaction")

    def _limit(self):
        return time_limit(self._fd)


class SQLite:
    "A connection to a file of SQLite, which is looked at again and again"

    # There is nothing to wait for.
    fileno = None

    def __init__(self, channels, name, bus, connect_timeout):
        try:
            uri = backend.Database(name)._make_uri()
        except (OSError, backend.DatabaseOperationalError) as error:
            raise Dropped(str(error)) from error
        self._bus = bus
        self._journal = journal.of(name, channels[0])
        # It never writes, or it would not see whether others do.
        self._connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            self._file = self._journal.file(self._connection)
            with self._waiting():
                self._version = self._journal.version(self._connection)
                self._replay = Replay.start(
                    self._journal, self._connection, name, bus)
        except BaseException:
            self.close()
            raise
        self._looked = self._looked_at_file = time.monotonic()

    @property
    def due(self):
        "The moment from which is_due is to be called"
        return self._looked + LOOK_EVERY

    def is_due(self):
        """Whether another connection may have committed; does not block

        Raises OSError when the file of the database was replaced.
        """
        self._looked = time.monotonic()
        if not self._replay:
            return False
        if self._looked - self._looked_at_file > LOOK_AT_FILE_EVERY:
            self._looked_at_file = self._looked
            if self._journal.file(self._connection) != self._file:
                raise OSError("the file of the database was replaced")
            self._bus.expire()
            # Old rows are deleted then.
            return True
        try:
            return self._journal.version(self._connection) != self._version
        except sqlite3.OperationalError:
            # Another process writes.
            return True

    def look(self):
        "Read what was committed before"
        with self._waiting():
            # Before the look: what is committed meanwhile is another one.
            self._version = self._journal.version(self._connection)
            if self._replay:
                self._replay.look()
                self._replay.purge()
            else:
                self._bus.begin_look()
                self._bus.end_look()

    def close(self):
        self._connection.close()

    @contextmanager
    def _waiting(self):
        "Wait for other processes that write"
        self._set_busy_timeout(BUSY_TIMEOUT)
        yield
        self._set_busy_timeout(0)

    def _set_busy_timeout(self, seconds):
        self._connection.execute(
            'PRAGMA busy_timeout = %d' % (seconds * 1000)).fetchall()


def connect(name, timeout=None):
    """Connect to a database of PostgreSQL with trytond's parameters, outside
    of its pool.

    Raises Dropped where the database does not exist.
    """
    limit = settings.keep_alive_timeout()
    if timeout:
        limit = min(limit, timeout)
    try:
        with coroutine.time_limit(limit + 1):
            return _connect(name, limit)
    except backend.DatabaseOperationalError as error:
        # The drivers give no code for it, and messages are translated.
        if name in str(error) and not _exists(name):
            raise Dropped(str(error).strip()) from error
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
    "Whether the server has such a database, as far as it tells"
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
    """Break the connection with this descriptor when PostgreSQL does not
    answer in time.

    The drivers have no limit of their own for a peer that has gone silent.
    """
    deadline = _native.watch(fd, settings.keep_alive_timeout())
    try:
        yield
    finally:
        if deadline.lift():
            logger.warning(
                "PostgreSQL did not answer in %s seconds",
                settings.keep_alive_timeout())


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


def put(database, bus, notifications):
    "Put notifications on the bus: of each whether it is a part, its payload"
    _, reasons = bus.receive(notifications)
    for reason in reasons:
        logger.error(
            "bus listener on '%s' skipped a notification: %s",
            database, reason)
