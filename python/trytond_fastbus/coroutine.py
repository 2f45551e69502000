"""Waiting under gevent: a greenlet waits, its hub never does."""
import os
import sys
import threading
import weakref
from contextlib import contextmanager

from ._native import WokenQueue

_staying = []
_wakers = weakref.WeakKeyDictionary()
# The parent's greenlets wait for what the child will never hear of.
os.register_at_fork(after_in_child=_wakers.clear)


def ends_at_exit():
    "Whether the running thread is one that the interpreter's exit ends"
    return not is_patched() and threading.current_thread().daemon


def stay_in_child(parent):
    """Never let the running greenlet go on in the child of a fork.

    Unlike a thread it would, with connections that are the parent's: they
    must not even be closed there.
    """
    if os.getpid() == parent:
        return
    import gevent
    # One that nobody knows is ended.
    _staying.append(gevent.getcurrent())
    gevent.get_hub().switch()


def current_waker():
    "The waker of the running hub, None where threads are threads"
    if not is_patched():
        return None
    import gevent
    hub = gevent.get_hub()
    waker = _wakers.get(hub)
    if waker is None:
        waker = _wakers[hub] = _Waker(hub)
    return waker


def is_patched():
    "Whether what looks like a thread is a greenlet"
    monkey = sys.modules.get('gevent.monkey')
    return monkey is not None and monkey.is_module_patched('threading')


@contextmanager
def time_limit(seconds):
    """Have what a greenlet does end after some seconds, with TimeoutError

    What a thread does goes on.
    """
    if not is_patched():
        yield
        return
    import gevent
    error = TimeoutError("no answer in %s seconds" % seconds)
    with gevent.Timeout(seconds, error):
        yield


class _Waker:
    """Resumes the waiting greenlets of a hub.

    Any thread may put the token of one of them into the queue, which then
    signals the watcher; the rest happens in the hub's thread.
    """

    def __init__(self, hub):
        self._hub = weakref.ref(hub)
        self._loop = hub.loop
        self._watcher = hub.loop.async_()
        self._switches = {}
        self.queue = WokenQueue(self._watcher.send)

    def wait(self, token, timeout):
        "Wait until the token is woken, or the seconds have passed"
        from gevent.hub import Waiter
        waiter = Waiter(self._hub())
        timer = self._loop.timer(timeout)
        if not self._switches:
            # Only then: it would keep a hub alive that nobody waits in.
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
            # One that has timed out is gone.
            if switch := self._switches.get(token):
                # Not at once: a crowd would stall the hub.
                self._loop.run_callback(switch, None)
