"""The source of the messages of a database on PostgreSQL."""
import logging
import random
import selectors
import time
import uuid

from trytond import backend

from .. import journal, replay, settings
from ..driver import connect, received, time_limit
from ..replay import Replay

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Not the module's generator, because a program may set its seed.
_random = random.SystemRandom()

# The limit of probes per second, for all databases together
LOOKS = 10

# The part of PostgreSQL's queue of notifications above which a warning is
# logged
QUEUE_WARN = .5


class Deaf(Exception):
    "Notifications do not arrive on the connection"


class PostgreSQL:
    """A listening connection to PostgreSQL, outside of trytond's pool.

    The methods except receive may block.
    """

    # Whether the warning about the queue was logged
    _has_warned = False

    def __init__(self, channels, name, bus, connect_timeout):
        self._channel, self._part = self._channels = channels
        # Only this connection receives its echoes.
        self._echo_channel = '%s.%s' % (self._channel, uuid.uuid4())
        self._echo, self._is_echoed = 0, False
        self._name = name
        self._bus = bus
        self._replay = None
        self._queue_usage = 0
        self._connection = connect(name, connect_timeout)
        self._fd = self._connection.fileno()
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
            # For the echoes, which need no durability. It is set only after
            # the check, because a pooler in transaction mode would give other
            # clients the setting.
            cursor.execute('SET synchronous_commit TO off')
            # The setting does not exist before PostgreSQL 14.
            cursor.execute(
                "SELECT setting::float8 / 1000 FROM pg_settings "
                "WHERE name = 'idle_session_timeout'")
            self._idle_timeout, = cursor.fetchone() or (0,)
            for channel in self._channels:
                cursor.execute('LISTEN "%s"' % channel)
        table = journal.of(self._name, self._channel)
        if table:
            with self._limit():
                table.set_up(self._connection)
                # If the time limit broke a connection that waits for a locked
                # table, its process of PostgreSQL would stay until the table
                # is free.
                cursor.execute(
                    'SET lock_timeout TO %d'
                    % (settings.keep_alive_timeout() * 500))
        # After LISTEN, so that every later commit is notified
        self._replay = table and Replay.start(
            table, self._connection, self._name, self._bus, self._limit)
        if not self._replay:
            self._bus.end_look()
        self._take()
        self._asked = time.monotonic()

    def _check_listening(self, cursor):
        "Raise Deaf unless a notification arrives"
        with self._limit():
            cursor.execute('LISTEN "%s"' % self._echo_channel)
            cursor.execute('SELECT pg_backend_pid()')
            pid, = cursor.fetchone()
        if pid == self._connection.info.backend_pid:
            self._send_echo(cursor)
        else:
            # Through a pooler, a notification from this connection itself may
            # arrive with the answer although others do not.
            other = connect(self._name)
            try:
                self._send_echo(other.cursor())
            finally:
                other.close()
        try:
            self._wait_for_echo()
        except TimeoutError as error:
            raise Deaf(
                "%s: connect to PostgreSQL directly, or through a pooler in "
                "session mode" % error) from error

    def fileno(self):
        return self._fd

    def due(self, databases):
        """The time at which the next probe is due, in a process that listens
        to this number of databases"""
        interval = max(settings.select_timeout(), databases / LOOKS)
        if self._replay and self._queue_usage > QUEUE_WARN:
            # Rows may be committed without a notification.
            interval = min(interval, 1)
        if self._idle_timeout:
            interval = min(interval, self._idle_timeout / 2)
        # Random, so that the probes of many databases spread
        return self._asked + interval * _random.uniform(.9, 1)

    def is_due(self):
        "Whether a look is needed at that time"
        return True

    def receive(self):
        """Put the pending notifications on the bus.

        Returns None, or the rest of them, for which receive_slowly has to be
        called.
        """
        taken = []
        try:
            for channel, payload in received(self._connection):
                if channel == self._echo_channel:
                    self._is_echoed |= payload == str(self._echo)
                else:
                    taken.append((channel == self._part, payload))
        finally:
            # Notifications that arrived before the connection broke count as
            # well.
            if self._replay:
                rest = self._replay.receive(taken)
            else:
                replay.put(self._name, self._bus, taken)
                rest = None
        return rest

    def receive_slowly(self, rest):
        "Put the rest on the bus, for which the journal has to be read"
        self._replay.receive_slowly(rest)
        self._take()

    def look(self):
        """Make a look: put the messages on the bus that were committed before.

        The answers also prove that the connection still works.
        """
        if self._replay:
            self._replay.look(self._round_trip, self._take)
            self._replay.purge()
        else:
            self._bus.begin_look()
            self._round_trip()
            self._bus.end_look()
        self._bus.expire()
        # Notifications that arrived with the answers to the last queries
        self._take()
        self._asked = time.monotonic()

    def close(self):
        self._connection.close()

    def _round_trip(self):
        cursor = self._connection.cursor()
        with self._limit():
            # Without this call a queue that was full stays full.
            cursor.execute('SELECT pg_notification_queue_usage()')
            self._note_queue_usage(cursor)
        if self._bus.is_look_awaited:
            # Another process may have received a message before PostgreSQL
            # signals it to the backend of this connection. The queue is in the
            # order of the commits, so when this echo arrives, everything
            # before it was read.
            try:
                self._send_echo(cursor)
            except backend.DatabaseOperationalError:
                # The queue is full.
                if self._connection.closed:
                    raise
            else:
                self._wait_for_echo()
        self._take()

    def _send_echo(self, cursor):
        self._echo, self._is_echoed = self._echo + 1, False
        with self._limit():
            cursor.execute(
                'SELECT pg_notify(%s, %s)',
                (self._echo_channel, str(self._echo)))

    def _wait_for_echo(self):
        limit = settings.keep_alive_timeout()
        end = time.monotonic() + limit
        self._take()
        # Most echoes arrive with the answer.
        while not self._is_echoed:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(
                    "a notification that the listener sent to itself did not "
                    "arrive within %s seconds" % limit)
            with selectors.DefaultSelector() as selector:
                selector.register(self._fd, selectors.EVENT_READ)
                selector.select(left)
            self._take()

    def _take(self):
        "Receive the pending notifications"
        if rest := self.receive():
            self._replay.receive_slowly(rest)

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
                or "one that listens and does not end its transaction")

    def _limit(self):
        return time_limit(self._fd)
