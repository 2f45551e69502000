"""The source of the messages of a database on SQLite, with a journal."""
import sqlite3
import time
from contextlib import contextmanager

from trytond import backend

from .. import journal
from ..driver import Dropped
from ..replay import Replay

# Seconds between two checks for the commits of other connections
LOOK_EVERY = .05

# Seconds between two checks whether the file was replaced
LOOK_AT_FILE_EVERY = 1

# Seconds for which a query waits while another process writes
BUSY_TIMEOUT = 5


class SQLite:
    "A connection to a file of SQLite, which is checked periodically"

    # SQLite has no descriptor to wait for.
    fileno = None

    def __init__(self, channels, name, bus, connect_timeout):
        try:
            uri = backend.Database(name)._make_uri()
        except (OSError, backend.DatabaseOperationalError) as error:
            raise Dropped(str(error)) from error
        self._bus = bus
        self._journal = journal.of(name, channels[0])
        # The connection never writes. Otherwise it would not notice the writes
        # of others.
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

    def due(self, databases):
        "The time at which is_due has to be called next"
        return self._looked + LOOK_EVERY

    def is_due(self):
        """Whether another connection may have committed; does not block.

        Raises OSError if the file of the database was replaced.
        """
        self._looked = time.monotonic()
        if not self._replay:
            return False
        if self._looked - self._looked_at_file > LOOK_AT_FILE_EVERY:
            self._looked_at_file = self._looked
            if self._journal.file(self._connection) != self._file:
                raise OSError("the file of the database was replaced")
            self._bus.expire()
            # The look deletes old rows.
            return True
        try:
            return self._journal.version(self._connection) != self._version
        except sqlite3.OperationalError:
            # Another process writes.
            return True

    def look(self):
        "Make a look: read the rows that were committed before"
        with self._waiting():
            # Read before the look, so that a commit during the look causes
            # another one.
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
