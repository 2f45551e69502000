"""The journal of a database on SQLite."""
import json
import os
import re
from contextlib import contextmanager

from trytond import backend

from .. import settings
from . import purger
from .common import BYTES_MAX, NUMBER_MAX, OLD_ROWS, ROWS, newer
from .schema import TABLE, VERSION

NOW = "(julianday('now') - 2440587.5) * 86400"
PAYLOAD = '''\
'{"channel":' || json_quote(channel) || ',"message":' || message || '}'
'''


class SQLite:
    "The journal of a database on SQLite"

    # The comment stays with the table.
    MAKE = f'''\
CREATE TABLE IF NOT EXISTS {TABLE} (
    -- version {VERSION}
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    created REAL NOT NULL DEFAULT ({NOW}),
    channel TEXT NOT NULL,
    message TEXT NOT NULL,
    notify TEXT NOT NULL DEFAULT 'bus')'''
    UPDATE = f'''\
ALTER TABLE {TABLE} ADD COLUMN notify TEXT NOT NULL DEFAULT 'bus'
'''
    LOOK = f'''\
SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'
'''
    INSERT = f'''\
INSERT INTO {TABLE} (notify, channel, message) VALUES (?, ?, ?)'''
    NEWEST = f'SELECT coalesce(max(seq), 0) FROM {TABLE}'
    OLD = f'''\
SELECT seq FROM {TABLE} WHERE {NOW} - created > ? ORDER BY seq DESC LIMIT 1
'''
    READ = f'''\
SELECT seq, created, {NOW} - created, CASE
    WHEN seq > ?1 AND length(message) > ?4 THEN ''
    WHEN seq > ?1 THEN {PAYLOAD} END
FROM {TABLE} WHERE seq >= ?1 AND seq <= ?2 AND notify = ?3
ORDER BY seq LIMIT {ROWS}
'''
    FIRST = f'''\
SELECT seq, {NOW} - created, {PAYLOAD} FROM {TABLE}
WHERE seq > ? AND seq <= ? AND notify = ?
    AND channel IN (SELECT value FROM json_each(?)) AND length(message) <= ?
ORDER BY seq LIMIT 1
'''
    OLDEST = f'SELECT {NOW} - created FROM {TABLE} ORDER BY seq LIMIT 1'
    PURGE = f'''\
DELETE FROM {TABLE} WHERE seq IN (
    SELECT seq FROM {TABLE} ORDER BY seq LIMIT {OLD_ROWS})
AND {NOW} - created > ?
'''

    def __init__(self, name, notify='bus'):
        self._name = name
        self._notify = notify

    def look(self, connection):
        """Return whether the table exists, and is as this release needs it.

        Raises Unusable if a newer release has made it.
        """
        found = connection.execute(self.LOOK).fetchone()
        if not found:
            return False
        version = re.search(r'-- version (\d+)', found[0])
        if version and int(version[1]) > VERSION:
            raise newer(self._name, int(version[1]), VERSION)
        return re.search(r'\bnotify\b', found[0]) is not None

    def prepare(self, connection):
        "Make the table, or update it, unless it is up to date"
        if self.look(connection):
            return
        connection.execute(self.MAKE)
        if not self.look(connection):
            connection.execute(self.UPDATE)

    def drop(self, connection):
        "Remove the table; return whether it existed"
        found = connection.execute(self.LOOK).fetchone()
        connection.execute(f'DROP TABLE IF EXISTS {TABLE}')
        return found is not None

    def insert(self, transaction, channel, message):
        "Write the message, even if trytond's transaction is read-only"
        cursor = transaction.connection.cursor()
        row = self._notify, channel, message
        try:
            cursor.execute(self.INSERT, row)
        except backend.DatabaseOperationalError as error:
            if not re.search('no such table|has no column', str(error)):
                raise
            self.prepare(transaction.connection)
            cursor.execute(self.INSERT, row)
        purger.written(self._name, type(self))
        return True

    def _is_usable(self, connection):
        "Whether the table exists; an older one is updated"
        if self.look(connection):
            return True
        if not connection.execute(self.LOOK).fetchone():
            return False
        with self.connected() as other:
            self.prepare(other)
        return True

    def old(self, connection, seconds):
        "Return the greatest number of an older row, 0 if there is none"
        if not self._is_usable(connection):
            return 0
        row = connection.execute(self.OLD, (seconds,)).fetchone()
        return row[0] if row else 0

    def read(self, connection, after, size=BYTES_MAX, until=NUMBER_MAX):
        """Return the first rows from number after to number until, both
        included. Each row is its number, the time of its commit and its age,
        both in seconds, and its payload: None for the row with number after,
        empty for a row that is too large.

        After the first row, the page ends when the rows reach size bytes."""
        rows, taken = [], 0
        if not self._is_usable(connection):
            return rows
        for row in connection.execute(self.READ, (
                    after, until, self._notify, settings.payload_max())):
            rows.append(row)
            taken += len(row[-1] or '')
            if taken >= size:
                break
        return rows

    def newest(self, connection):
        "Return the greatest number, 0 if there is none"
        return connection.execute(self.NEWEST).fetchone()[0]

    def first(self, connection, channels, after, until):
        """Return the first row in the channels with a number above after and
        at most until, as its number, age and payload; None if there is none"""
        return connection.execute(
            self.FIRST, (
                after, until, self._notify, json.dumps(channels),
                settings.payload_max())
            ).fetchone()

    def purge(self, connection, seconds, above=0):
        """Delete some of the older rows; return 0 in place of the greatest
        deleted number, and whether there may be more"""
        oldest = (
            self.look(connection)
            and connection.execute(self.OLDEST).fetchone())
        if not oldest or oldest[0] < seconds:
            return 0, False
        # A connection that watches for changes must not make any.
        with self.connected() as other:
            deleted = other.execute(self.PURGE, (seconds,)).rowcount
        return 0, deleted == OLD_ROWS

    def version(self, connection):
        "Return a value that changes when another connection commits"
        version, = connection.execute('PRAGMA data_version').fetchone()
        return version

    def file(self, connection):
        "Return a value that changes when the file is replaced"
        path = connection.execute('PRAGMA database_list').fetchone()[2]
        status = os.stat(path)
        return status.st_dev, status.st_ino

    @contextmanager
    def connected(self):
        "A connection for a short time"
        database = backend.Database(self._name)
        try:
            yield database.get_connection(autocommit=True)
        finally:
            database.close()
