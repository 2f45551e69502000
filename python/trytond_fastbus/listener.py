"""The listener of one database. The thread of the loop calls all of them."""
import logging
import random
import threading
import time
from functools import partial

from trytond import backend

from . import loop, settings, source
from .driver import CONNECT_TIMEOUT, Dropped
from .logs import in_a_line

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Not the module's generator, because a program may set its seed.
_random = random.SystemRandom()

# Seconds between two attempts to connect
RETRY_MIN, RETRY_MAX = .1, 1

# How many databases without a connection try to connect in a second. After the
# first success all others try at once.
RETRIES = 20


def part_channel(bus):
    """The channel for payloads that are too large for one NOTIFY. It carries
    their parts, or their journal number"""
    return bus._channel + '.part'


class Listener:
    """Listens to one database.

    Its state is one of

    - connecting: a worker connects and catches up
    - listening: the loop waits for notifications
    - looking: a worker has the connection
    - waiting: it connects again at its deadline
    - ended

    The loop calls the methods on_*. Any thread may call the other methods that
    are not private.
    """

    def __init__(self, bus, name, queue, lock):
        self._channels = bus._channel, part_channel(bus)
        self._name = name
        self._queue = queue
        self._native = queue['bus']
        self._open_source = source.of(name)
        self._loop = loop.current(lock) if self._open_source else None
        self._over = threading.Event()
        self._source = None
        self._state = 'connecting'
        self._is_rung = False
        self._retries = 0
        # The time at which the connection was lost, None while it is open
        self._lost = None
        self.key = self.bell = self.due = None
        if self._loop:
            self._loop.add(self)
            self._native.set_bell(self.bell)
        else:
            self._over.set()

    def is_alive(self):
        "Whether it listens"
        return not self._over.is_set()

    def join(self, timeout=None):
        "Wait until it has ended"
        if self.is_alive():
            self._loop.call(self._on_join)
        self._over.wait(timeout)

    def on_start(self):
        self._connect()

    def on_readable(self):
        # A bell that rang at the same time may have begun a look.
        if self._state != 'listening' or self._ends():
            return
        try:
            rest = self._source.receive()
        except Exception as error:
            self._fail(error)
        else:
            if rest:
                self._work(partial(self._source.receive_slowly, rest))

    def on_ring(self):
        if self._state == 'listening':
            if not self._ends():
                self._work(self._source.look)
        elif self._state != 'waiting':
            self._is_rung = True

    def on_due(self):
        if self._ends():
            return
        if self._state == 'waiting':
            self._connect()
            return
        try:
            is_due = self._source.is_due()
        except Exception as error:
            self._fail(error)
        else:
            if is_due:
                self._work(self._source.look)
            else:
                self._set_due()

    def on_end(self):
        "The loop has failed. The next subscription starts another one"
        self._queue.abandon()
        self._over.set()
        if self._state == 'listening':
            self._source.close()

    def _on_join(self):
        if self._state in {'listening', 'waiting'}:
            self._ends()

    def retry(self):
        "Connect at once, since another database has got a connection"
        if self._state == 'waiting':
            self._loop.set_due(self, 0)

    def look_soon(self):
        """Check the connection, because another database has lost its
        connection"""
        if self._state == 'listening':
            soon = time.monotonic() + _random.uniform(
                0, settings.select_timeout())
            if soon < self.due:
                self._loop.set_due(self, soon)

    def is_lost(self):
        return self._lost is not None

    def _connect(self):
        self._state = 'connecting'
        # Every fourth attempt may take longer, for a slow server.
        limit = None if self._retries % 4 == 0 else CONNECT_TIMEOUT
        self._submit(
            partial(
                self._open_source, self._channels, self._name, self._native,
                limit),
            self._connected)

    def _connected(self, opened, error):
        if error:
            self._fail(error)
            return
        self._source = opened
        self._native.connected()
        self._log_start()
        was_lost, self._lost, self._retries = self._lost, None, 0
        if was_lost is not None:
            for other in self._loop.waiters():
                other.retry()
        self._listen()

    def _listen(self):
        "Wait for notifications, unless the listener has to end"
        self._state = 'looking'
        if self._ends():
            return
        if self._is_rung:
            self._is_rung = False
            self._submit(self._source.look, self._worked)
            return
        self._state = 'listening'
        if self._source.fileno:
            self._loop.watch(self, self._source.fileno())
        self._set_due()

    def _set_due(self):
        self._loop.set_due(self, self._source.due(len(self._loop.waiters())))

    def _work(self, function):
        "Have a worker use the connection"
        self._unwatch()
        self._state = 'looking'
        self.due = None
        self._submit(function, self._worked)

    def _worked(self, _, error):
        if error:
            self._fail(error)
        else:
            self._listen()

    def _submit(self, function, then):
        try:
            self._loop.work(function, then)
        except Exception as error:
            self._fail(error)

    def _unwatch(self):
        if self._state == 'listening' and self._source.fileno:
            self._loop.unwatch(self._source.fileno())

    def _close(self):
        self._unwatch()
        if self._source:
            self._source.close()
            self._source = None

    def _fail(self, error):
        "Connect again after the back-off"
        try:
            self._close()
        except Exception:
            logger.exception(
                "bus listener on '%s' cannot close its connection",
                self._name)
        self._is_rung = False
        if isinstance(error, Dropped):
            self._forget(error)
            return
        self._state = 'waiting'
        text = in_a_line(error)
        if self._lost is None:
            self._lost = time.monotonic()
            self._native.disconnected()
            for other in self._loop.waiters():
                other.look_soon()
            if isinstance(error, source.Deaf):
                logger.error(
                    "bus listener on '%s' gets no notifications: %s",
                    self._name, text)
            else:
                logger.warning(
                    "bus listener on '%s' has no connection: %s",
                    self._name, text, exc_info=None if isinstance(
                        error, (backend.DatabaseOperationalError, OSError))
                    else error)
        else:
            logger.info(
                "bus listener on '%s' cannot connect: %s", self._name, text)
        if self._ends():
            return
        lost = sum(other.is_lost() for other in self._loop.waiters())
        pause = max(
            min(RETRY_MIN * 2 ** min(self._retries, 9), RETRY_MAX),
            lost / RETRIES)
        self._retries += 1
        # Random, so that many processes do not connect at the same time
        self._loop.set_due(
            self, time.monotonic() + pause * _random.uniform(.5, 1))

    def _log_start(self):
        if self._lost is None:
            logger.info("start listener for '%s'", self._name)
        else:
            logger.warning(
                "bus listener on '%s' reconnected after %.1f seconds, "
                "messages of that time %s",
                self._name, time.monotonic() - self._lost,
                "were read from the journal" if self._native.has_journal
                else "are lost")

    def _forget(self, error):
        logger.warning(
            "bus listener on '%s' ends, because the database does not exist: "
            "%s",
            self._name, error)
        self._queue.forget()
        self._finish()

    def _ends(self):
        "End if there was no subscription for the timeout"
        if not self._queue.ends():
            return False
        self._close()
        self._finish()
        return True

    def _finish(self):
        self._state = 'ended'
        self._loop.remove(self)
        self._over.set()
