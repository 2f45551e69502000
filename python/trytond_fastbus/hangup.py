"""Ending the wait of a client that has closed its connection, and of all
clients when the WSGI server's process is to end.

A WSGI server does not tell when a client closes its connection, so its poll
occupies a thread until the timeout. Some servers pass the connection's socket
to the application. With these the wait ends at once.
"""
import os
import select
import signal
import threading
import time
from contextlib import contextmanager, suppress

from werkzeug.exceptions import HTTPException

from . import _native, body

# Seconds between two checks whether a worker of gunicorn has to end
LOOK_EVERY = .25

# By process and thread. A context variable would be wrong, because in
# free-threaded Python a thread passes its context to the threads that it
# starts, and the client is not theirs.
_sockets = {}
_watchers = {}
# The processes that have a thread which watches for their end
_workers = set()


class Middleware:
    """Ends the waits of clients that have closed their connection, in all
    requests of app, and refuses polls with an invalid body"""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        try:
            body.check(environ)
        except HTTPException as error:
            return error(environ, start_response)
        with serving(environ):
            return self.app(environ, start_response)


@contextmanager
def serving(environ):
    "Within the block, this thread serves the client of this request"
    key = _key()
    before = _sockets.get(key)
    _sockets[key] = (
        environ.get('werkzeug.socket') or environ.get('gunicorn.socket'))
    try:
        yield
    finally:
        if before is None:
            del _sockets[key]
        else:
            _sockets[key] = before


def _key():
    return os.getpid(), threading.get_ident()


def watch(hang_up):
    """Call hang_up when the client of the request closes its connection.

    Returns a function that ends the watch, or None when nothing is watched.
    """
    socket = _sockets.get(_key())
    # gevent removes epoll, but there a wait occupies no thread.
    if socket is None or not hasattr(select, 'epoll'):
        return None
    pid = os.getpid()
    watcher = _watchers.get(pid)
    if watcher is None:
        watcher = _watchers.setdefault(pid, _Watcher())
    return watcher.watch(socket.fileno(), hang_up)


def end_with_worker():
    """End all waits of this process when gunicorn tells it to end.

    On SIGTERM, for example of a reload, a worker waits up to graceful_timeout
    for its requests and then kills them. It has no hook for that, and only the
    main thread may handle signals. But any thread can find the object that
    handles them.
    """
    handler = signal.getsignal(signal.SIGTERM)
    worker = getattr(handler, '__self__', None)
    if (type(worker).__module__.split('.')[0] != 'gunicorn'
            or not hasattr(worker, 'alive') or os.getpid() in _workers):
        return
    _workers.add(os.getpid())
    threading.Thread(
        target=_end_with, args=(worker,), name='bus-worker-end',
        daemon=True).start()


def _end_with(worker):
    while worker.alive:
        time.sleep(LOOK_EVERY)
    _native.close()


class _Watcher:
    "A thread that waits until any of the connections is closed"

    def __init__(self):
        self._epoll = select.epoll()
        self._watched = {}
        self._lock = threading.Lock()
        self._thread = None

    def watch(self, fd, hang_up):
        with self._lock:
            if not self._thread:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
            self._watched[fd] = hang_up

        def end():
            # The thread that ends the watch closes the socket later, so the
            # number can't belong to another socket yet.
            with self._lock:
                with suppress(OSError):
                    self._epoll.unregister(fd)
                del self._watched[fd]
        return end

    def _run(self):
        while True:
            for fd, _ in self._epoll.poll():
                with self._lock:
                    hang_up = self._watched.get(fd)
                    # By now the number may belong to another socket.
                    gone = hang_up and _has_gone(fd)
                if gone:
                    hang_up()


def _has_gone(fd):
    "Whether the other end of the connection is closed"
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))
