"""Waiting under gevent. A greenlet waits, and its hub never does."""
import os
import sys
import threading
import weakref
from contextlib import contextmanager

from ._native import TokenQueue

_staying = []
_wakers = weakref.WeakKeyDictionary()
# The parent's greenlets wait for events that never reach the child.
os.register_at_fork(after_in_child=_wakers.clear)


def ends_at_exit():
    "Whether the interpreter's exit ends the running thread"
    return not is_patched() and threading.current_thread().daemon


def stay_in_child(parent):
    """Never let the running greenlet continue in the child of a fork.

    Unlike a thread it would continue, with the parent's connections, which
    must not even be closed in the child.
    """
    if os.getpid() == parent:
        return
    import gevent
    # A greenlet without a reference would be ended.
    _staying.append(gevent.getcurrent())
    gevent.get_hub().switch()


def current_waker():
    "The waker of the running hub, None if threads are not greenlets"
    if not is_patched():
        return None
    import gevent
    hub = gevent.get_hub()
    waker = _wakers.get(hub)
    if waker is None:
        waker = _wakers[hub] = _Waker(hub)
    return waker


def is_patched():
    "Whether gevent has replaced threads by greenlets"
    monkey = sys.modules.get('gevent.monkey')
    return monkey is not None and monkey.is_module_patched('threading')


@contextmanager
def time_limit(seconds):
    """Raise TimeoutError in a greenlet after this number of seconds.

    In a thread it has no effect.
    """
    if not is_patched():
        yield
        return
    import gevent
    error = TimeoutError("no answer within %s seconds" % seconds)
    with gevent.Timeout(seconds, error):
        yield


class _Waker:
    """Resumes the waiting greenlets of a hub.

    Any thread may put the token of a greenlet into the queue. The queue then
    signals the watcher, and the rest happens in the hub's thread.
    """

    def __init__(self, hub):
        self._hub = weakref.ref(hub)
        self._loop = hub.loop
        self._watcher = hub.loop.async_()
        self._switches = {}
        self.queue = TokenQueue(self._watcher.send)

    def wait(self, token, timeout):
        "Wait until the token is woken, or the seconds have passed"
        from gevent.hub import Waiter
        waiter = Waiter(self._hub())
        timer = self._loop.timer(timeout)
        if not self._switches:
            # Started only now, because it would keep a hub without waits
            # alive.
            self._watcher.start(self._resume)
        self._switches[token] = waiter.switch
        try:
            # A signal before the watcher was started is lost.
            self._resume()
            timer.start(waiter.switch, None)
            waiter.get()
        finally:
            timer.close()
            del self._switches[token]
            if not self._switches:
                self._watcher.stop()

    def _resume(self):
        for token in self.queue.take():
            # A wait that has timed out has no entry.
            if switch := self._switches.get(token):
                # Resumed later, because resuming a crowd at once would stall
                # the hub.
                self._loop.run_callback(switch, None)
