"""The databases that this process listens to, in `Bus._queues`.

A database has an entry from its first subscription until `[database] timeout`
seconds after the last one.
"""
import math
import os
import time

from . import _native, journal, replay, settings
from .listener import Listener


def ensure(bus, database):
    "Start a listener of the database, unless there is one"
    key = os.getpid(), database
    with bus._queues_lock[os.getpid()]:
        queue = bus._queues.get(key)
        if not queue:
            # An invalid value is reported here, rather than in the thread.
            settings.database_timeout()
            queue = Queue(bus, database, native(database))
        # The bus knows the time of the last poll. Other code may set an
        # earlier end, as trytond's tests do.
        queue['timeout'] = math.inf
        queue['bus'].listen()


def native(database):
    "The bus of the database in this process"
    return _native.DatabaseBus(
        database,
        settings.cache_timeout(), settings.cache_size(),
        settings.payload_max(),
        settings.journal_timeout() if journal.of(database) else None)


def deliver(bus, database, payloads):
    "Put payloads on the bus of this process, if it has subscribers"
    queue = bus._queues.get((os.getpid(), database))
    if queue and not queue.ends():
        replay.put(
            database, queue['bus'], [(False, payload) for payload in payloads])


def ring(bus, database):
    "Ask for a look, if this process subscribes to the database"
    if queue := bus._queues.get((os.getpid(), database)):
        queue['bus'].ring()


def listen(bus, database):
    "Listen to the database until it has no subscribers"
    ensure(bus, database)
    if queue := bus._queues.get((os.getpid(), database)):
        queue['listener'].join()


class Queue(dict):
    """The entry of a database in `Bus._queues`, with the keys timeout, bus and
    listener. `Bus._queues_lock` must be held to make one.

    trytond's tests use the keys timeout and listener.
    """

    def __init__(self, bus, database, native):
        self._key = os.getpid(), database
        self._queues = bus._queues
        self._lock = bus._queues_lock[os.getpid()]
        super().__init__(timeout=math.inf, bus=native)
        self['listener'] = Listener(bus, database, self, self._lock)
        self._queues[self._key] = self

    def ends(self):
        "Remove the entry if there was no subscription for the timeout"
        if self._is_current() and not self['bus'].is_idle(self._timeout()):
            return False
        with self._lock:
            if not self._is_current():
                # It was removed, and another listener may exist.
                self['bus'].abandon()
                return True
            # A subscription may have arrived in the meantime.
            if not self['bus'].remove(self._timeout()):
                return False
            del self._queues[self._key]
            return True

    def forget(self):
        "Remove the entry, since the database does not exist"
        with self._lock:
            if self._is_current():
                del self._queues[self._key]
                self['bus'].forget()

    def abandon(self):
        "Remove the entry; the next subscription makes another one"
        with self._lock:
            if self._is_current():
                del self._queues[self._key]
            self['bus'].abandon()

    def _is_current(self):
        return self._queues.get(self._key) is self

    def _timeout(self):
        "Seconds without a subscription after which the entry is removed"
        if self['timeout'] <= time.time():
            return 0
        return settings.database_timeout()
