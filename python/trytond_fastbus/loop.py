"""The thread that waits for the notifications, bells and deadlines of all
databases of this process."""
import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections import deque
from functools import partial

from . import _native, coroutine
from .workers import Workers

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# By process
_loops = {}


def current(lock):
    """The loop of this process, which is started if there is none.

    lock must be held, because the loop takes it before it ends.

    Raises RuntimeError if no thread can be started.
    """
    pid = os.getpid()
    loop = _loops.get(pid)
    if loop is None:
        loop = _loops[pid] = Loop(pid, lock)
        try:
            threading.Thread(
                target=loop.run, name='bus-listener', daemon=True).start()
        except BaseException:
            del _loops[pid]
            raise
    return loop


class Loop:
    """Calls its waiters in one thread, which must never block.

    A waiter has the methods on_start, on_readable, on_ring, on_due and on_end.
    The loop sets its attributes key and bell. Its attribute due is a time of
    time.monotonic, or None.
    """

    def __init__(self, pid, lock):
        self._pid = pid
        self._lock = lock
        self._alarm = _native.Alarm()
        self._bell = self._alarm.bell(0)
        # By the key of their bell
        self._waiters = {}
        # The functions that other threads want to have called here
        self._calls = deque()
        self._deadlines = []
        self._order = itertools.count(1)
        self._selector = None
        self._workers = Workers()

    def add(self, waiter):
        "Call a waiter from now on; the lock must be held"
        waiter.key = key = next(self._order)
        waiter.bell = self._alarm.bell(key)
        self._waiters[key] = waiter
        self.call(waiter.on_start)

    def remove(self, waiter):
        "Call a waiter no more"
        waiter.due = None
        del self._waiters[waiter.key]

    def watch(self, waiter, fd):
        "Call on_readable while the descriptor is readable"
        self._selector.register(fd, selectors.EVENT_READ, waiter.on_readable)

    def unwatch(self, fd):
        self._selector.unregister(fd)

    def set_due(self, waiter, due):
        "Call on_due at this time, which replaces an earlier one"
        waiter.due = due
        heapq.heappush(self._deadlines, (due, next(self._order), waiter))

    def work(self, function, then):
        """Run a function that may block in another thread, and then(result,
        error) in this one"""
        def call():
            result = error = None
            try:
                result = function()
            except Exception as raised:
                error = raised
            except BaseException as raised:
                self.call(partial(then, None, raised))
                raise
            coroutine.stay_in_child(self._pid)
            self.call(partial(then, result, error))
        self._workers.submit(call)

    def call(self, function):
        "Call a function in the thread of the loop"
        self._calls.append(function)
        self._bell.ring()

    def waiters(self):
        "The current waiters"
        return list(self._waiters.values())

    def run(self):
        "Call the waiters until there are none"
        try:
            with selectors.DefaultSelector() as self._selector:
                self._selector.register(
                    self._alarm, selectors.EVENT_READ, self._ring)
                while not self._has_ended():
                    for key, _ in self._selector.select(self._left()):
                        coroutine.stay_in_child(self._pid)
                        self._safely(key.data)
                    coroutine.stay_in_child(self._pid)
                    self._call_due()
        except BaseException:
            # If the thread is killed, the next subscription starts another
            # one.
            with self._lock:
                _loops.pop(self._pid, None)
            for waiter in self.waiters():
                waiter.on_end()
            raise

    def _ring(self):
        rung = self._alarm.take()
        while self._calls:
            self._safely(self._calls.popleft())
        for key in rung:
            if waiter := self._waiters.get(key):
                self._safely(waiter.on_ring)

    def _safely(self, function):
        try:
            function()
        except Exception:
            # The other databases continue.
            logger.exception("the bus listener failed")

    def _left(self):
        "Seconds until the next deadline"
        while self._deadlines:
            due, _, waiter = self._deadlines[0]
            if waiter.due == due:
                return max(due - time.monotonic(), 0)
            heapq.heappop(self._deadlines)

    def _call_due(self):
        while self._left() == 0:
            _, _, waiter = heapq.heappop(self._deadlines)
            waiter.due = None
            self._safely(waiter.on_due)

    def _has_ended(self):
        if self._waiters or self._calls:
            return False
        with self._lock:
            if self._waiters or self._calls:
                return False
            del _loops[self._pid]
            return True
