"""The journal: the messages of a database as rows of a table in it.

A row is written in the transaction of its message. Its number is the place of
that transaction among all: numbers rise in the order of the commits, with
gaps. On PostgreSQL a trigger gives it within COMMIT, where it also notifies
those who listen; on SQLite, with one writer at a time, the INSERT does.
"""
import json
import logging
import os
import time
import weakref
from contextlib import contextmanager

import trytond.config
from trytond import backend

from . import settings

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

TABLE = 'trytond_fastbus_journal'

# Numbers are negative until their transaction commits.
NEWEST = f'SELECT coalesce(max(seq), 0) FROM {TABLE} WHERE seq > 0'

# How many rows and bytes are read at a time
ROWS, BYTES = 2000, 16 * 1024 * 1024

# The greatest number
NUMBER_MAX = 2 ** 63 - 1

# How many old rows are deleted at a time
OLD_ROWS = 1000

# Seconds after which it is tried again to make a table that could not be made
RETRY = 60

# The first number of our advisory locks on PostgreSQL, and the second: for
# numbering (in the trigger), for making the table, for deleting old rows
LOCKS, LOCK_NUMBER, LOCK_MAKE, LOCK_PURGE = 1717658484, 1, 2, 3


class Unusable(RuntimeError):
    "There is no journal in the database, and it can not be made"


def of(name):
    "The journal of a database, or None where it has to have none"
    if settings.journal():
        if backend.name == 'postgresql':
            return PostgreSQL(name)
        # That in memory is one connection's.
        if backend.name == 'sqlite' and name != ':memory:':
            return SQLite(name)


def sql():
    "The statements that make the journal, for trytond's role"
    if backend.name != 'postgresql':
        return SQLite.MAKE + ';\n'
    uri = trytond.config.parse_uri(settings.config.get('database', 'uri'))
    role = uri.username or os.environ.get('PGUSER') or 'trytond'
    return PostgreSQL.MAKE + PostgreSQL.GRANT.format(
        role=role.replace('"', '""'))


class PostgreSQL:
    "The journal of a database on PostgreSQL"

    MAKE = f'''\
CREATE SEQUENCE IF NOT EXISTS {TABLE}_seq;

-- The number is negative until the transaction commits.
CREATE TABLE IF NOT EXISTS {TABLE} (
    seq bigint PRIMARY KEY DEFAULT -nextval('{TABLE}_seq'),
    created timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    channel text NOT NULL,
    message text NOT NULL);

ALTER SEQUENCE {TABLE}_seq OWNED BY {TABLE}.seq;

-- It names the schema and limits the time only when it has to wait: settings
-- of the function would take a third of its time.
DO $make$
BEGIN
    EXECUTE format($format$
CREATE OR REPLACE FUNCTION {TABLE}_commit() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
    channel_ text;
    message_ text;
    payload text;
    limit_ text;
    ignored boolean;
BEGIN
    -- Until the transaction is over, so that numbers follow commits
    IF NOT pg_try_advisory_xact_lock({LOCKS}, {LOCK_NUMBER}) THEN
        limit_ := current_setting('lock_timeout');
        PERFORM set_config('lock_timeout', '10s', true);
        PERFORM pg_advisory_xact_lock({LOCKS}, {LOCK_NUMBER});
        PERFORM set_config('lock_timeout', limit_, true);
    END IF;
    UPDATE %1$I.{TABLE}
        SET seq = nextval(%2$L), created = clock_timestamp()
        WHERE seq = NEW.seq
        RETURNING seq, channel, message INTO number, channel_, message_;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    payload := '{{"channel":' || to_json(channel_) || ',"message":'
        || message_ || ',"seq":' || number || '}}';
    -- Expressions take less time than statements.
    IF octet_length(payload) < 8000 THEN
        ignored := pg_notify('bus', payload) IS NULL;
    ELSE
        ignored := pg_notify('bus.part', number::text) IS NULL;
    END IF;
    RETURN NULL;
END
$$
$format$, current_schema(), format('%I.{TABLE}_seq', current_schema()));
END
$make$;

DO $$
BEGIN
    IF NOT EXISTS (
            SELECT FROM pg_trigger
            WHERE tgrelid = '{TABLE}'::regclass
                AND tgname = '{TABLE}_commit') THEN
        CREATE CONSTRAINT TRIGGER {TABLE}_commit AFTER INSERT ON {TABLE}
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq < 0)
            EXECUTE FUNCTION {TABLE}_commit();
    END IF;
END
$$;
'''
    GRANT = f'''
GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO "{{role}}";
GRANT USAGE ON SEQUENCE {TABLE}_seq TO "{{role}}";
'''
    LOOK = f'''\
SELECT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = journal.oid AND tgname = '{TABLE}_commit'),
    has_table_privilege(journal.oid, 'SELECT')
        AND has_table_privilege(journal.oid, 'INSERT')
        AND has_table_privilege(journal.oid, 'UPDATE')
        AND has_table_privilege(journal.oid, 'DELETE')
        AND has_sequence_privilege(to_regclass('{TABLE}_seq'), 'USAGE'),
    has_schema_privilege(current_schema(), 'CREATE')
FROM (SELECT to_regclass('{TABLE}')::oid AS oid) AS journal
'''
    INSERT = f'INSERT INTO {TABLE} (channel, message) VALUES (%s, %s)'
    PAYLOAD = '''\
'{"channel":' || to_json(channel) || ',"message":' || message || '}'
'''
    # Without statistics a range with two ends seems to have few rows, and all
    # that follow would be read and sorted for each page.
    READ = f'''\
SELECT seq, age, payload FROM (
    SELECT seq, {PAYLOAD} AS payload,
        extract(epoch FROM clock_timestamp() - created)::float8 AS age,
        sum(octet_length(message)) OVER (ORDER BY seq)
            - octet_length(message) AS bytes
    FROM (
        SELECT * FROM {TABLE} WHERE seq > %s ORDER BY seq LIMIT {ROWS}) AS rows
    ) AS page
WHERE bytes < {BYTES} AND seq <= %s ORDER BY seq
'''
    FIRST = f'''\
SELECT seq, extract(epoch FROM clock_timestamp() - created)::float8, {PAYLOAD}
FROM {TABLE} WHERE seq > %s AND seq <= %s AND channel = ANY(%s)
ORDER BY seq LIMIT 1
'''
    FIND = f'SELECT {PAYLOAD} FROM {TABLE} WHERE seq = %s'
    PURGE = f'''\
DELETE FROM {TABLE} WHERE seq IN (
    SELECT seq FROM {TABLE} WHERE seq > 0 ORDER BY seq LIMIT {OLD_ROWS})
AND created < clock_timestamp() - %s * interval '1 second'
'''

    # Connections on which the table was seen
    _seen = weakref.WeakSet()
    # By transaction: what writes, since making it takes a tenth of the time
    _cursors = weakref.WeakKeyDictionary()
    # By process and database: when the table could not be made
    _failed = {}

    def __init__(self, name):
        self._name = name
        self._is_there = False

    def look(self, connection):
        """Return whether the table is there.

        Raises Unusable when it can't be used or made.
        """
        cursor = connection.cursor()
        cursor.execute(self.LOOK)
        self._is_there, is_granted, can_make = cursor.fetchone()
        if self._is_there and not is_granted:
            raise self._unusable(
                "the role may not use the table %s and its sequence" % TABLE)
        if not self._is_there and not can_make:
            raise self._unusable("the role may not make the table %s" % TABLE)
        return self._is_there

    def prepare(self, connection):
        """Make the table unless it is there.

        Raises Unusable when it can't be made or used.
        """
        if not self.look(connection):
            self._make()
        self._seen.add(connection)

    def insert(self, transaction, channel, message):
        "Write the message; False if it can only be sent without the journal"
        connection = transaction.connection
        if transaction.readonly:
            return False
        # A connection that breaks there fails the transaction: sent without
        # the journal its message, and those of others, might be lost.
        if connection not in self._seen and not self._prepare_once(connection):
            return False
        cursor = self._cursors.get(transaction)
        if cursor is None or cursor.connection is not connection:
            cursor = self._cursors[transaction] = connection.cursor()
        cursor.execute(self.INSERT, (channel, message))
        return True

    def read(self, connection, after, until=NUMBER_MAX):
        """Return the first rows whose number is in this range, each with its
        number, its age in seconds and its payload; none at the end"""
        if not self._is_there and not self.look(connection):
            return []
        cursor = connection.cursor()
        cursor.execute(self.READ, (after, until))
        return cursor.fetchall()

    def newest(self, connection):
        "Return the greatest number, 0 if there is none"
        cursor = connection.cursor()
        cursor.execute(NEWEST)
        return cursor.fetchone()[0]

    def first(self, connection, channels, after, until):
        "Return the first row in the channels likewise, None if there is none"
        cursor = connection.cursor()
        cursor.execute(self.FIRST, (after, until, channels))
        return cursor.fetchone()

    def find(self, connection, number):
        "Return the payload of the row, None if it is not there"
        if not self._is_there:
            return None
        cursor = connection.cursor()
        cursor.execute(self.FIND, (number,))
        row = cursor.fetchone()
        return row and row[0]

    def purge(self, connection, seconds):
        "Delete some of the older rows; whether there may be more"
        if not self._is_there:
            return False
        cursor = connection.cursor()
        with _lock(cursor, 'pg_try_advisory_lock', LOCK_PURGE) as locked:
            if not locked:
                return False
            cursor.execute(self.PURGE, (seconds,))
            return cursor.rowcount == OLD_ROWS

    def _prepare_once(self, connection):
        key = os.getpid(), self._name
        if time.monotonic() - self._failed.get(key, -RETRY) < RETRY:
            return False
        try:
            self.prepare(connection)
        except Unusable as error:
            self._failed[key] = time.monotonic()
            logger.error(
                "messages on '%s' are sent without the journal: %s",
                self._name, error)
            return False
        return True

    def _make(self):
        # Not in the transaction that asks for it: others want to write there
        # before that is over.
        try:
            database = backend.Database(self._name)
            connection = database.get_connection(autocommit=True)
            try:
                cursor = connection.cursor()
                with _lock(cursor, 'pg_advisory_lock', LOCK_MAKE):
                    if not self.look(connection):
                        cursor.execute(self.MAKE)
            except BaseException:
                connection.close()
                raise
            finally:
                database.put_connection(connection)
        except (Unusable, backend.DatabaseOperationalError):
            raise
        except Exception as error:
            raise self._unusable(str(error).strip()) from error

    def _unusable(self, reason):
        return Unusable(
            "the journal of the bus on '%s' can not be used: %s; have the "
            "owner of the database run what 'trytond-bus --journal-sql' "
            "prints" % (self._name, reason))


@contextmanager
def _lock(cursor, function, number):
    cursor.execute(f'SELECT {function}(%s, %s)', (LOCKS, number))
    locked = cursor.fetchone()[0] is not False
    yield locked
    if locked:
        cursor.execute('SELECT pg_advisory_unlock(%s, %s)', (LOCKS, number))


class SQLite:
    "The journal of a database on SQLite"

    NOW = "(julianday('now') - 2440587.5) * 86400"
    MAKE = f'''\
CREATE TABLE IF NOT EXISTS {TABLE} (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    created REAL NOT NULL DEFAULT ({NOW}),
    channel TEXT NOT NULL,
    message TEXT NOT NULL)'''
    LOOK = f"SELECT 1 FROM sqlite_master WHERE name = '{TABLE}'"
    INSERT = f'INSERT INTO {TABLE} (channel, message) VALUES (?, ?)'
    PAYLOAD = '''\
'{"channel":' || json_quote(channel) || ',"message":' || message || '}'
'''
    READ = f'''\
SELECT seq, {NOW} - created, {PAYLOAD} FROM {TABLE}
WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT {ROWS}
'''
    FIRST = f'''\
SELECT seq, {NOW} - created, {PAYLOAD} FROM {TABLE}
WHERE seq > ? AND seq <= ? AND channel IN (SELECT value FROM json_each(?))
ORDER BY seq LIMIT 1
'''
    FIND = f'SELECT {PAYLOAD} FROM {TABLE} WHERE seq = ?'
    OLDEST = f'SELECT {NOW} - created FROM {TABLE} ORDER BY seq LIMIT 1'
    PURGE = f'''\
DELETE FROM {TABLE} WHERE seq IN (
    SELECT seq FROM {TABLE} ORDER BY seq LIMIT {OLD_ROWS})
AND created < {NOW} - ?
'''

    def __init__(self, name):
        self._name = name

    def look(self, connection):
        "Return whether the table is there"
        return connection.execute(self.LOOK).fetchone() is not None

    def prepare(self, connection):
        "Make the table unless it is there"
        connection.execute(self.MAKE)

    def insert(self, transaction, channel, message):
        "Write the message, be the transaction read-only for trytond"
        cursor = transaction.connection.cursor()
        try:
            cursor.execute(self.INSERT, (channel, message))
        except backend.DatabaseOperationalError as error:
            if 'no such table' not in str(error):
                raise
            self.prepare(transaction.connection)
            cursor.execute(self.INSERT, (channel, message))
        return True

    def read(self, connection, after, until=NUMBER_MAX):
        """Return the first rows whose number is in this range, each with its
        number, its age in seconds and its payload; none at the end"""
        rows, size = [], 0
        if not self.look(connection):
            return rows
        for row in connection.execute(self.READ, (after, until)):
            rows.append(row)
            size += len(row[-1])
            if size > BYTES:
                break
        return rows

    def newest(self, connection):
        "Return the greatest number, 0 if there is none"
        return connection.execute(NEWEST).fetchone()[0]

    def first(self, connection, channels, after, until):
        "Return the first row in the channels likewise, None if there is none"
        return connection.execute(
            self.FIRST, (after, until, json.dumps(channels))).fetchone()

    def find(self, connection, number):
        "Return the payload of the row, None if it is not there"
        if not self.look(connection):
            return None
        row = connection.execute(self.FIND, (number,)).fetchone()
        return row and row[0]

    def purge(self, connection, seconds):
        "Delete some of the older rows; whether there may be more"
        oldest = (
            self.look(connection)
            and connection.execute(self.OLDEST).fetchone())
        if not oldest or oldest[0] < seconds:
            return False
        # What looks for changes must not make any.
        with self._other_connection() as other:
            return other.execute(self.PURGE, (seconds,)).rowcount == OLD_ROWS

    def version(self, connection):
        "Return what is another value once another connection has committed"
        version, = connection.execute('PRAGMA data_version').fetchone()
        return version

    def file(self, connection):
        "Return what is another value once the file was replaced"
        path = connection.execute('PRAGMA database_list').fetchone()[2]
        status = os.stat(path)
        return status.st_dev, status.st_ino

    @contextmanager
    def _other_connection(self):
        database = backend.Database(self._name)
        try:
            yield database.get_connection(autocommit=True)
        finally:
            database.close()
