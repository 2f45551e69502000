"""Reading the journal of a database into the bus of this process."""
import logging
import time
from contextlib import contextmanager, nullcontext

from trytond import backend

from . import settings, skipped
from .journal import NUMBER_MAX, Unusable
from .journal.common import BYTES_MAX, BYTES_MIN
from .journal.purger import Deletion
from .logs import in_a_line

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

ROW = "a row of the journal"

# How many polls whose last message was evicted are served at a time
REQUESTS = 100

# Seconds after which a table that could not be used is tried again
RETRY = 10

# Seconds that a page of rows should take; the size of the next page is
# adjusted to that
PAGE_TIME = .5


class Replay:
    """The journal of a database, read into its bus.

    The number in a NOTIFY is only a hint that there are new rows, because any
    role of the database can send it. A message whose number is the next one is
    delivered before its row is read, which confirms it.

    limit returns a context manager that breaks the connection if it does not
    answer in time.
    """

    def __init__(self, journal, connection, name, bus, limit=nullcontext):
        self._journal = journal
        self._connection = connection
        self._name = name
        self._bus = bus
        self._limit = limit
        self._evicted = bus.evicted
        self._deletion = Deletion(journal)
        self._size = BYTES_MIN
        # While the table can't be used: the time of the next attempt
        self._retry_at = 0

    @classmethod
    def start(cls, *args, **kwargs):
        "Read the rows that were committed until now and not read yet"
        self = cls(*args, **kwargs)
        self.look()
        return self

    def look(self, then=lambda: None, take=lambda: None):
        """Read the new rows, call then, and wake the polls that wait for the
        look. Call take after each query for one poll, because many of them
        take long."""
        self._bus.begin_look()
        with self._using_journal(tries=True) as usable:
            if usable:
                self.read()
        then()
        self._bus.end_look()
        with self._using_journal() as usable:
            if usable:
                for request in self._bus.requests(REQUESTS):
                    self._answer(*request)
                    take()

    def receive(self, notifications):
        """Put notifications on the bus, each a pair of whether it is a part,
        and its payload.

        Returns None, or the rest of them, for which receive_slowly has to be
        called.
        """
        taken, announced, reasons = self._bus.receive(
            notifications, self._journal.table)
        skipped.log(self._name, "a notification", reasons)
        if announced:
            return (*announced, notifications[taken:])

    def receive_slowly(self, rest):
        """Read the rows that the rest of some notifications announces, and put
        the others on the bus"""
        while rest:
            count, number, notifications = rest
            with self._using_journal() as usable:
                if usable:
                    self.read(until=min(number, NUMBER_MAX))
                    notifications = notifications[count:]
            rest = self.receive(notifications)

    def read(self, until=NUMBER_MAX):
        "Read the new rows up to this number"
        while True:
            position = self._bus.position
            # Older rows have expired.
            after = position or self._ask(
                self._journal.old, settings.journal_timeout())
            started = time.monotonic()
            rows = self._ask(
                self._journal.read, after, self._size, max(until, after))
            if position:
                if not rows or not self._bus.is_mark(*rows[0][:2]):
                    # The last row that was read is missing. It was deleted
                    # with all rows before it, or the numbers mean something
                    # else.
                    self._bus.rewind()
                    until = NUMBER_MAX
                    continue
                rows = rows[1:]
            if not rows:
                break
            self._fit_size(time.monotonic() - started)
            skipped.log(self._name, ROW, self._bus.replay(rows))
            if not self._bus.position:
                break
        if back := self._bus.end_read(until):
            logger.warning(
                "the journal of the bus on '%s' went back from number %d to "
                "%d, so all of it was read", self._name, *back)

    def _ask(self, function, *args):
        with self._limit():
            return function(self._connection, *args)

    def _answer(self, key, channels, after, until):
        try:
            row = self._ask(self._journal.first, channels, after, until)
        except (OSError, Unusable, backend.DatabaseOperationalError):
            raise
        except Exception as error:
            if getattr(self._connection, 'closed', False):
                raise
            # The query is refused. This poll gets the messages that are in
            # memory.
            logger.error(
                "bus listener on '%s' cannot read the journal for the "
                "channels %r: %s", self._name, channels, in_a_line(error))
            row = None
        if reason := self._bus.answer(key, row):
            skipped.log(self._name, ROW, [reason])

    @contextmanager
    def _using_journal(self, tries=False):
        "Whether the journal can be used; an error in the block suspends it"
        try:
            usable = self._can_use_journal(tries)
            yield usable
        except Unusable as error:
            self._suspend(error)
        else:
            if usable and self._retry_at:
                logger.warning(
                    "bus listener on '%s' uses the journal again", self._name)
                self._retry_at = 0

    def _can_use_journal(self, tries):
        if self._retry_at and not (
                tries and time.monotonic() >= self._retry_at):
            return False
        if self._retry_at or not self._bus.has_journal:
            try:
                self._ask(self._journal.look)
            except Unusable as error:
                self._suspend(error)
                return False
            self._bus.use_journal(True)
        return True

    def _suspend(self, error):
        "Continue without the journal for a while"
        if not self._retry_at:
            logger.error(
                "bus listener on '%s' continues without the journal: %s",
                self._name, error)
        self._retry_at = time.monotonic() + RETRY
        self._bus.use_journal(False)

    def _fit_size(self, seconds):
        """Choose the size of the next page, so that no page reaches the time
        limit"""
        if seconds > PAGE_TIME:
            self._size = max(self._size // 2, BYTES_MIN)
        else:
            self._size = min(self._size * 2, BYTES_MAX)

    def purge(self):
        "Delete old rows, once in a while"
        if not self._deletion.is_due:
            return
        with self._using_journal() as usable:
            if usable:
                try:
                    self._ask(self._deletion.run)
                except Unusable as error:
                    # It can be read nevertheless.
                    self._deletion.warn(self._name, error)
        evicted, self._evicted = self._evicted, self._bus.evicted
        if evicted < self._evicted:
            logger.warning(
                "the bus on '%s' has evicted %d messages before [bus] "
                "journal_timeout, and a client that returns late may miss "
                "some: raise [bus] cache_size",
                self._name, self._evicted - evicted)


def put(database, bus, notifications):
    "Put notifications, pairs of is_part and payload, on the bus"
    *_, reasons = bus.receive(notifications, None)
    skipped.log(database, "a notification", reasons)
