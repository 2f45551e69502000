"""Reading the journal of a database into the bus of this process."""
import logging
import time
from contextlib import nullcontext

from . import settings
from .journal import NUMBER_MAX, Unusable
from .journal.common import BYTES_MAX, BYTES_MIN
from .journal.purger import Deletion

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# How many polls are read for at a time, whose last message has left the
# memory
REQUESTS = 100

# Seconds that a page of rows takes, as the next one is made larger or smaller
PAGE_TIME = .5


class Replay:
    """The journal of a database, read into its bus.

    limit makes the context manager that breaks the connection when it does
    not answer in time.
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

    @classmethod
    def start(cls, *args, **kwargs):
        """Read what was committed until now and was not read before.

        Returns None where there is no journal that can be used.
        """
        self = cls(*args, **kwargs)
        try:
            with self._limit():
                # Who publishes first makes the table, not this: the
                # database may be about to be restored.
                self._journal.look(self._connection)
        except Unusable as error:
            logger.error(
                "bus listener on '%s' goes without the journal: %s",
                self._name, error)
            self._bus.use_journal(False)
            return None
        self._bus.use_journal(True)
        last = self._bus.last_number
        if last and not self._holds(last):
            # It is old, or the database was restored, and its numbers may
            # belong to other messages now.
            self._bus.rewind()
        self.look()
        if self._bus.last_number < last:
            logger.warning(
                "the journal of the bus on '%s' went back from number %d to "
                "%d: all of it was read",
                self._name, last, self._bus.last_number)
        return self

    def look(self, then=lambda: None):
        """Read the new rows, do something, and let those polls go on that
        wait for what other processes may have got before"""
        self._bus.begin_look()
        self.read()
        then()
        self._bus.end_look()
        for key, channels, after, until in self._bus.requests(REQUESTS):
            with self._limit():
                row = self._journal.first(
                    self._connection, channels, after, until)
            if reason := self._bus.answer(key, row):
                self._log_skipped(reason)

    def receive(self, notifications):
        """Put notifications on the bus: of each whether it is a part, and its
        payload.

        Returns the last of them, from the first on that needs the database.
        """
        for index, (is_part, payload) in enumerate(notifications):
            if is_part and _number(payload) is not None:
                self._put(notifications[:index])
                return notifications[index:]
        self._put(notifications)
        return []

    def receive_slowly(self, notifications):
        "Put those on the bus of which the first needs the database"
        while notifications:
            (_, payload), *notifications = notifications
            # The message itself is too large, and only in the journal.
            self.read(until=_number(payload))
            notifications = self.receive(notifications)

    def read(self, until=NUMBER_MAX):
        "Read the new rows up to this number"
        last = self._bus.last_number
        if not last:
            # What is older can't be asked for.
            with self._limit():
                last = self._journal.old(
                    self._connection, settings.journal_timeout())
        while True:
            started = time.monotonic()
            with self._limit():
                rows = self._journal.read(
                    self._connection, last, self._size, until)
            if not rows:
                return
            self._fit_size(time.monotonic() - started)
            last = rows[-1][0]
            for reason in self._bus.replay(rows):
                self._log_skipped(reason)

    def _fit_size(self, seconds):
        "Choose the bytes of the next page: no page is to reach the time limit"
        if seconds > PAGE_TIME:
            self._size = max(self._size // 2, BYTES_MIN)
        else:
            self._size = min(self._size * 2, BYTES_MAX)

    def _put(self, notifications):
        for reason in self._bus.receive(notifications):
            logger.error(
                "bus listener on '%s' skipped a notification: %s",
                self._name, reason)

    def _log_skipped(self, reason):
        logger.error(
            "bus listener on '%s' skipped a row of the journal: %s",
            self._name, reason)

    def purge(self):
        "Delete old rows, once in a while"
        if not self._deletion.is_due:
            return
        with self._limit():
            self._deletion.run(self._connection)
        evicted, self._evicted = self._evicted, self._bus.evicted
        if evicted < self._evicted:
            logger.warning(
                "the bus on '%s' has forgotten %d messages before "
                "[bus] journal_timeout, for [bus] cache_size: who comes back "
                "late may miss some", self._name, self._evicted - evicted)

    def _holds(self, number):
        with self._limit():
            payload = self._journal.find(self._connection, number)
        return payload is not None and self._bus.is_last(payload)


def _number(payload):
    "The number in a payload that is nothing else, or None"
    if payload.isascii() and payload.isdigit() and len(payload) <= 19:
        number = int(payload)
        return number if number <= NUMBER_MAX else None
