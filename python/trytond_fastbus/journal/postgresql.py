"""The journal of a database on PostgreSQL."""
import logging
import os
import time
import weakref
from contextlib import contextmanager

from trytond import backend

from .. import driver, settings
from . import purger, schema
from .common import BYTES_MAX, NUMBER_MAX, OLD_ROWS, Unusable, newer
from .schema import LOCK_MAKE, LOCK_PURGE, LOCKS, TABLE, VERSION
from .statements import statements

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Seconds after which a table that could not be used is tried again
RETRY = 60


class PostgreSQL:
    "The journal of a database on PostgreSQL"

    # By connection on which the table was checked: its statements
    _seen = weakref.WeakKeyDictionary()
    # By transaction: the cursor that writes, because making one takes a tenth
    # of the time
    _cursors = weakref.WeakKeyDictionary()
    # By process and database: the time until which messages are sent without
    # the journal
    _failed = {}
    # By process and database: the time of the last change of the table
    _changed = {}

    def __init__(self, name, notify='bus'):
        self._name = name
        self._notify = notify
        self._statements, self._is_outdated = None, False
        # The object identifier of the table when it was looked at
        self.table = None

    def look(self, connection):
        """Return whether the table exists, and everything is as this release
        needs it.

        Raises Unusable if it can't be used, updated or made.
        """
        self._statements, self._is_outdated = None, False
        cursor = connection.cursor()
        cursor.execute(schema.LOOK)
        (self.table, namespace, version, is_complete, is_trusted, is_granted,
            is_owner, can_make) = cursor.fetchone()
        if namespace is None:
            if not can_make:
                raise self._unusable(
                    "the role may not make the table %s" % TABLE)
            return False
        version = int(version)
        if version > VERSION:
            raise newer(self._name, version, VERSION)
        if not is_trusted:
            raise self._unusable(
                "the table %s or its function belongs to a role that is "
                "neither trytond's nor the owner of the database, of the "
                "schema or a superuser" % TABLE,
                "let a superuser drop it, or change its owner")
        found = statements('"%s".%s' % (
                namespace.replace('"', '""').replace('%', '%%'), TABLE))
        if version < VERSION or not is_complete:
            if not is_owner:
                raise self._unusable(
                    "the role may not update the table %s from version %d to "
                    "%d" % (TABLE, version, VERSION))
            if version == VERSION:
                # The rows of an outdated table can be read.
                self._statements = found
            else:
                # A table without its trigger is being restored.
                self._is_outdated = is_complete
            return False
        if not is_granted:
            raise self._unusable(
                "the role may not use the table %s and its sequence" % TABLE)
        self._statements = found
        return True

    def prepare(self, connection):
        """Make the table, or update it, unless it is up to date.

        Raises Unusable if it can't be made or used.
        """
        if not self.look(connection):
            self._make()
        self._seen[connection] = self._statements

    def drop(self, connection):
        "Remove the table; return whether it existed"
        cursor = connection.cursor()
        cursor.execute(schema.LOOK)
        table, *_ = cursor.fetchone()
        cursor.execute(schema.DROP)
        return table is not None

    def insert(self, transaction, channel, message):
        """Write the message; return False if it can only be sent without the
        journal.

        Raises DatabaseOperationalError if the table has changed since the
        check. trytond then runs the transaction again.
        """
        connection = transaction.connection
        if transaction.readonly:
            return False
        # A connection that breaks here fails the transaction. Without the
        # journal its message, and those of other transactions, might be lost.
        if connection not in self._seen and not self._prepare_once(connection):
            return False
        cursor = self._cursors.get(transaction)
        if cursor is None or cursor.connection is not connection:
            cursor = self._cursors[transaction] = connection.cursor()
        try:
            cursor.execute(
                self._seen[connection].INSERT,
                (self._notify, channel, message))
        except Exception as error:
            if not is_refused(error):
                raise
            self._forget(connection, error)
            raise backend.DatabaseOperationalError(
                "the journal of the bus on '%s' has changed, try again: %s" % (
                    self._name, reason(error))) from error
        purger.written(self._name, type(self))
        return True

    def old(self, connection, seconds):
        "Return the greatest number of an older row, 0 if there is none"
        cursor = self._execute(connection, 'OLD', seconds=seconds)
        return cursor.fetchone()[0] if cursor else 0

    def read(self, connection, after, size=BYTES_MAX, until=NUMBER_MAX):
        """Return the first rows from number after to number until, both
        included. Each row is its number, the time of its commit and its age,
        both in seconds, and its payload: None for the row with number after,
        empty for a row that is too large.

        After the first row, the page ends when the rows reach size bytes."""
        cursor = self._execute(
            connection, 'READ', after=after, until=until, size=size,
            most=settings.payload_max(), notify=self._notify)
        return cursor.fetchall() if cursor else []

    def newest(self, connection):
        "Return the greatest number, 0 if there is none"
        # Numbers are negative until their transaction commits.
        cursor = self._execute(connection, 'NEWEST', zero=0)
        return cursor.fetchone()[0] if cursor else 0

    def first(self, connection, channels, after, until):
        """Return the first row in the channels with a number above after and
        at most until, as its number, age and payload; None if there is none"""
        cursor = self._execute(
            connection, 'FIRST', after=after, until=until,
            most=settings.payload_max(), notify=self._notify,
            channels=channels)
        return cursor.fetchone() if cursor else None

    @staticmethod
    def set_up(connection):
        """Replace settings of the role or the database with which the journal
        might not be made, read or purged"""
        cursor = connection.cursor()
        cursor.execute('SET default_transaction_read_only TO off')
        cursor.execute('SET statement_timeout TO 0')

    @contextmanager
    def connected(self):
        """A connection for a short time, outside of trytond's pool.

        Raises FileNotFoundError if the database does not exist.
        """
        try:
            connection = driver.connect(self._name)
        except driver.Dropped as error:
            raise FileNotFoundError(str(error)) from error
        try:
            self.set_up(connection)
            yield connection
        finally:
            connection.close()

    def purge(self, connection, seconds, above=0):
        """Delete some of the older rows above a number; return the greatest
        deleted number, and whether there may be more"""
        with _lock(
                connection.cursor(), 'pg_try_advisory_lock',
                LOCK_PURGE) as locked:
            if not locked:
                return above, False
            cursor = self._execute(
                connection, 'PURGE', above=above, seconds=seconds)
            count, number = cursor.fetchone() if cursor else (0, None)
            return number or above, count == OLD_ROWS

    def _execute(self, connection, name, **parameters):
        """Execute a statement on the table; return None if it does not exist.

        Raises Unusable if it can't be used.
        """
        for attempt in range(2):
            if not self._statements and not self.look(connection):
                if self._is_outdated:
                    self._make()
            if not self._statements:
                return None
            cursor = connection.cursor()
            try:
                cursor.execute(getattr(self._statements, name), parameters)
            except Exception as error:
                if sqlstate(error) == LOCK_NOT_AVAILABLE:
                    raise self._unusable(
                        "the table %s is locked" % TABLE,
                        "it is tried again") from error
                if not is_refused(error):
                    raise
                # The next statement is for the table that exists now.
                self._statements = None
                if attempt:
                    raise self._unusable(reason(error)) from error
            else:
                return cursor

    def _prepare_once(self, connection):
        key = os.getpid(), self._name
        if time.monotonic() < self._failed.get(key, 0):
            return False
        try:
            self.prepare(connection)
        except Unusable as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error):
        self._failed[os.getpid(), self._name] = time.monotonic() + RETRY
        logger.error(
            "messages on '%s' are sent without the journal: %s",
            self._name, reason(error))

    def _forget(self, connection, error):
        "Check the table anew on all connections"
        if self._seen.pop(connection, None) is None:
            # Another thread has noticed the change.
            return
        self._seen.clear()
        logger.warning(
            "the journal of the bus on '%s' has changed: %s",
            self._name, reason(error))
        key, now = (os.getpid(), self._name), time.monotonic()
        if now - self._changed.get(key, -RETRY) < RETRY:
            # Another check does not help.
            self._fail(error)
        self._changed[key] = now

    def _make(self):
        # Not in the caller's transaction, because other transactions want to
        # write to the table before that one ends.
        try:
            with self.connected() as connection:
                cursor = connection.cursor()
                with _lock(cursor, 'pg_advisory_lock', LOCK_MAKE):
                    if not self.look(connection):
                        cursor.execute(schema.MAKE)
                        if not self.look(connection):
                            raise self._unusable("the table is not complete")
        except (Unusable, backend.DatabaseOperationalError) as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                raise self._unusable(reason(error)) from error
            raise
        except Exception as error:
            raise self._unusable(reason(error)) from error

    def _unusable(self, reason, remedy=None):
        return Unusable(self._name, reason, remedy)


# The SQLSTATE of a statement that has waited too long for the lock of a table
LOCK_NOT_AVAILABLE = '55P03'


def sqlstate(error):
    "The SQLSTATE of an error of PostgreSQL, or None"
    return getattr(error, 'sqlstate', None) or getattr(error, 'pgcode', None)


def reason(error):
    "The message of an error without its details, which may contain the row"
    return str(error).strip().partition('\n')[0]


def is_refused(error):
    """Whether PostgreSQL refuses a statement because of the table as it is
    now, rather than the connection, the transaction (25) or a value (22)"""
    state = sqlstate(error)
    return (
        state is not None and state[:2] not in {'22', '25'}
        and not isinstance(error, backend.DatabaseOperationalError))


@contextmanager
def _lock(cursor, function, number):
    cursor.execute(f'SELECT pg_catalog.{function}(%s, %s)', (LOCKS, number))
    locked = cursor.fetchone()[0] is not False
    try:
        yield locked
    finally:
        if locked:
            cursor.execute(
                'SELECT pg_catalog.pg_advisory_unlock(%s, %s)',
                (LOCKS, number))
