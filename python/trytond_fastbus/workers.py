"""Threads for calls that may block, such as connecting and queries."""
import os
import threading
from collections import deque

from . import coroutine

# The most threads of a process
WORKERS = 8

# Seconds after which a thread without work ends
IDLE = 10


class Workers:
    "Runs calls in a few threads, which are started on demand"

    def __init__(self):
        self._pid = os.getpid()
        self._calls = deque()
        self._idle = self._running = 0
        self._changed = threading.Condition()

    def submit(self, call):
        """Run the call, which must not raise, in a thread.

        Raises RuntimeError if no thread can be started.
        """
        with self._changed:
            self._calls.append(call)
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._running < WORKERS:
                self._running += 1
                try:
                    threading.Thread(
                        target=self._run, name='bus-worker',
                        daemon=True).start()
                except BaseException:
                    self._running -= 1
                    # The running threads do the work.
                    if not self._running:
                        self._calls.remove(call)
                        raise

    def _run(self):
        try:
            while call := self._next():
                call()
                coroutine.stay_in_child(self._pid)
        finally:
            with self._changed:
                self._running -= 1

    def _next(self):
        with self._changed:
            while not self._calls:
                self._idle += 1
                try:
                    is_told = self._changed.wait(IDLE)
                finally:
                    self._idle -= 1
                coroutine.stay_in_child(self._pid)
                if not is_told and not self._calls:
                    return None
            return self._calls.popleft()
