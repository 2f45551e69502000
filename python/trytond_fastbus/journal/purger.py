"""Deleting the old rows of the journals, off the publishing path.

A listener deletes those of its database. A process that publishes has a thread
that deletes those of all databases that it writes to, because it may be that
no process listens to them. A lock lets one process at a time delete.
"""
import logging
import os
import random
import threading
import time

from .. import settings
from ..logs import in_a_line

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# The longest time between two deletions, in seconds
PURGE_EVERY = 60

# Not the module's generator, because a program may set its seed.
_random = random.SystemRandom()


class Deletion:
    "The periodic deletion of the old rows of a journal"

    def __init__(self, table):
        self._table = table
        self._above, self._forget_at = 0, 0
        self.put_off()

    @property
    def is_due(self):
        return time.monotonic() >= self.at

    def put_off(self):
        # Random, so that the processes do not all delete at the same time
        self.at = time.monotonic() + _random.uniform(.5, 1) * min(
            PURGE_EVERY, settings.journal_timeout() / 10)

    def run(self, connection):
        "Delete some rows; if there may be more, the next run is due at once"
        self.put_off()
        seconds, now = settings.journal_timeout(), time.monotonic()
        # Deleted rows stay in the index while another transaction may see them
        # (pg_dump). A run does not scan them again, except once in a while,
        # because the numbers may have gone back.
        if now >= self._forget_at:
            self._above, self._forget_at = 0, now + seconds
        self._above, more = self._table.purge(connection, seconds, self._above)
        if more:
            self.at = now

    def warn(self, name, error):
        "Log that rows cannot be deleted"
        logger.warning(
            "cannot delete old rows of the journal of the bus on '%s': %s",
            name, in_a_line(error))


class _Purger:
    "The thread of a process that writes to journals"

    def __init__(self):
        # By database: the deletion, and the time of the last written row
        self._deletions, self._written = {}, {}
        self._lock = threading.Lock()
        self._has_new = threading.Event()
        self._thread = None
        # The time of the next attempt to start the thread
        self._retry_at = 0

    def written(self, name, kind):
        if name in self._deletions or self._add(name, Deletion(kind(name))):
            self._written[name] = time.monotonic()

    def _add(self, name, deletion):
        "Delete rows of one more database; return whether a thread does so"
        with self._lock:
            if time.monotonic() < self._retry_at:
                return False
            self._deletions.setdefault(name, deletion)
            self._has_new.set()
            try:
                self._start()
            except RuntimeError as error:
                # It must not fail the transaction. Listeners and other
                # processes delete rows as well.
                del self._deletions[name]
                self._retry_at = time.monotonic() + PURGE_EVERY
                deletion.warn(name, error)
                return False
            return True

    def _start(self):
        if not self._thread:
            thread = threading.Thread(
                target=self._run, name='bus-purger', daemon=True)
            thread.start()
            self._thread = thread

    def _run(self):
        while True:
            with self._lock:
                self._forget()
                deletions = [*self._deletions.items()]
                if not deletions:
                    self._thread = None
                    return
            for name, deletion in deletions:
                if deletion.is_due:
                    self._delete(name, deletion)
            if not self._deletions:
                continue
            self._has_new.wait(max(
                    min(d.at for _, d in deletions) - time.monotonic(), 0))
            self._has_new.clear()

    def _delete(self, name, deletion):
        try:
            with deletion._table.connected() as connection:
                deletion.run(connection)
                while deletion.is_due:
                    deletion.run(connection)
        except FileNotFoundError:
            # The database does not exist any more.
            self._written.pop(name, None)
            del self._deletions[name]
        except Exception as error:
            deletion.put_off()
            deletion.warn(name, error)

    def _forget(self):
        "Remove the databases where all rows of this process are deleted"
        end = time.monotonic() - settings.journal_timeout() - 2 * PURGE_EVERY
        for name in [n for n, t in list(self._written.items()) if t < end]:
            del self._written[name], self._deletions[name]


_purger = _Purger()


def written(name, kind):
    "Delete old rows of this journal from now on, because a row was written"
    _purger.written(name, kind)


def _forked():
    # The parent's thread does not exist in the child.
    global _purger
    _purger = _Purger()


os.register_at_fork(after_in_child=_forked)
