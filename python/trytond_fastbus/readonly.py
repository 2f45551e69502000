"""Connections that only read, outside of trytond's pools.

A wait is always short, for a place in a pool and for a database that does not
answer, so that one database never delays another.
"""
import json
import os
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager

from trytond import backend

from . import _native, settings

# Time limits in seconds for connecting and for a query
CONNECT_TIMEOUT = 2
QUERY_TIMEOUT = 2

# The limit of idle connections, and the seconds for which they are kept
KEEP = 8
KEEP_TIME = 60

NO_TABLES = (
    "it has no tables of Tryton: check its name, or run trytond-admin --all")

# The key of the connection that lists databases
CATALOGUE = None


class NoDatabase(Exception):
    "There is no Tryton database with this name; the text says why"


class Connections:
    """Connections to databases, each for one thread at a time.

    Its methods raise DatabaseOperationalError if a database can't be reached,
    and NoDatabase if it does not have trytond's tables.
    """

    def __init__(self):
        self._is_postgresql = hasattr(backend.Database, '_connection_params')
        # By database: a connection with the time of its last use, the oldest
        # first
        self._kept = {}
        self._lock = threading.Lock()

    def exist(self, names):
        "Return the set of the names for which a database exists"
        if not self._is_postgresql:
            return {name for name in names if _path(name)}
        return self._use(CATALOGUE, lambda connection: connection.exist(names))

    def sessions(self, database, keys):
        """Return the rows (key, user, seconds[, address]) of the sessions that
        have these keys. The seconds from 1970 to the date of a session are
        None if it has no date"""
        if not self._is_postgresql:
            return _sessions_of_sqlite(database, keys)
        return self._use(
            database, lambda connection: connection.sessions(keys))

    def _use(self, database, query):
        connection = self._take(database)
        if connection:
            try:
                return self._query(database, connection, query)
            except backend.DatabaseOperationalError:
                # The server may have closed it since. A new connection shows
                # that.
                pass
        return self._query(database, PostgreSQL(database), query)

    def _query(self, database, connection, query):
        try:
            result = query(connection)
        except BaseException:
            connection.close()
            raise
        self._put(database, connection)
        return result

    def _take(self, database):
        with self._lock:
            connection, _ = self._kept.pop(database, (None, None))
        return connection

    def _put(self, database, connection):
        with self._lock:
            before, _ = self._kept.pop(database, (None, None))
            self._kept[database] = connection, time.monotonic()
            old = [before] if before else []
            while len(self._kept) > KEEP:
                oldest, _ = self._kept.pop(next(iter(self._kept)))
                old.append(oldest)
        for connection in old:
            connection.close()

    def tick(self):
        "Close connections that are idle for too long"
        then = time.monotonic() - KEEP_TIME
        with self._lock:
            old = [
                name for name, (_, used) in self._kept.items() if used < then]
            old = [self._kept.pop(name)[0] for name in old]
        for connection in old:
            connection.close()

    def close(self):
        with self._lock:
            kept, self._kept = self._kept, {}
        for connection, _ in kept.values():
            connection.close()


class PostgreSQL:
    "A connection with trytond's parameters"

    def __init__(self, database):
        name = database
        if database is CATALOGUE:
            name = settings.config.get(
                'database', 'default_name', default='template1')
        parameters = backend.Database._connection_params(name)
        parameters['connect_timeout'] = CONNECT_TIMEOUT
        # psycopg or psycopg2
        error = backend.DatabaseOperationalError
        driver = sys.modules[error.__module__.partition('.')[0]]
        self._connection = driver.connect(**parameters)
        self._fd = None
        try:
            # A duplicate that the driver does not close. Otherwise the number
            # may be reused for another connection, which the watchdog would
            # shut down.
            self._fd = os.dup(self._connection.fileno())
            self._connection.autocommit = True
            if hasattr(self._connection, 'prepare_threshold'):
                # A pooler may give each transaction another connection.
                self._connection.prepare_threshold = None
            if database is not CATALOGUE:
                with self._transaction():
                    if not backend.Database._test(self._connection):
                        raise NoDatabase(NO_TABLES)
        except BaseException:
            self.close()
            raise

    def close(self):
        self._connection.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def exist(self, names):
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT datname FROM pg_database "
                "WHERE NOT datistemplate AND datname = ANY(%s)",
                ([name for name in names if '\0' not in name],))
            return {name for name, in cursor.fetchall()}

    def sessions(self, keys):
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT %s FROM ir_session WHERE key = ANY(%%s)"
                % _columns('extract(epoch FROM create_date)::float8'),
                (list(keys),))
            return cursor.fetchall()

    @contextmanager
    def _transaction(self):
        cursor = self._connection.cursor()
        # PostgreSQL's timeout has no effect when a pooler or the network drops
        # the query or the answer.
        deadline = _native.watch(self._fd, QUERY_TIMEOUT + 1)
        try:
            # Only for the transaction, because a pooler gives the connection
            # to others.
            cursor.execute(
                "BEGIN READ ONLY; SET LOCAL statement_timeout = %d"
                % (QUERY_TIMEOUT * 1000))
            yield cursor
            cursor.execute("COMMIT")
        finally:
            deadline.lift()


def _columns(seconds):
    # A driver raises for a value that is no date, such as infinity, and that
    # would fail all sessions of the query. So the date is read as a number.
    # Sessions have an address from 7.8 on.
    columns = ['key', 'create_uid', seconds]
    return ', '.join(columns + ['ip_address'] * settings.MODULE)


def _path(name):
    "The path of a database of SQLite, if it exists"
    if not name or os.path.basename(name) != name or '\0' in name:
        return None
    path = os.path.join(
        settings.config.get('database', 'path'), name + '.sqlite')
    return path if os.path.isfile(path) else None


def _sessions_of_sqlite(database, keys):
    # It is opened each time, because the file may have been replaced.
    if not _path(database):
        raise NoDatabase("the file does not exist")
    connection = sqlite3.connect(
        backend.Database(database)._make_uri(), uri=True,
        timeout=QUERY_TIMEOUT, isolation_level=None)
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA query_only = on")
        cursor.execute(
            "SELECT 1 FROM sqlite_master "
            "WHERE type = 'table' AND name = 'ir_session'")
        if not cursor.fetchall():
            raise NoDatabase(NO_TABLES)
        cursor.execute(
            "SELECT %s FROM ir_session "
            "WHERE key IN (SELECT value FROM json_each(?))"
            % _columns('(julianday(create_date) - 2440587.5) * 86400'),
            (json.dumps(list(keys)),))
        return cursor.fetchall()
    finally:
        connection.close()
