"""The threads that answer the questions of the bus server."""
import logging
import threading
import time
from contextlib import contextmanager

from trytond.pool import Pool

from . import _native, access, queues, settings
from .sessions import Sessions

logger = logging.getLogger('trytond.bus')

# Seconds for which a thread waits before it checks whether it has to end
LOOK_EVERY = .5

# Seconds without work after which a surplus thread ends
IDLE = 10

# The limit of threads, including those that wait for databases which do not
# answer
THREADS_MAX = 32


class Questions:
    "Answers the questions of the bus server"

    def __init__(self, server, bus, databases):
        self._server = server
        self._bus = bus
        self._named = databases
        self._sessions = Sessions(databases)
        self._lock = threading.Lock()
        self._threads = set()
        self._idle = self._least = 0
        self._ended = threading.Event()
        self._answers = {
            _native.DatabasesRequest: self._databases,
            _native.SessionsRequest: self._check,
            _native.AccessRequest: self._access,
            _native.ListenerRequest: self._listen,
            }

    @contextmanager
    def threads(self, number):
        """Answer in this number of threads, and in more while these wait for
        databases"""
        if settings.check_access(False) or (
                # Before 7.8 trytond can't check a session without modules.
                settings.session_check() == 'trytond'
                and not settings.MODULE):
            Pool.start()
            threading.Thread(
                target=self._load, name='bus-pool', daemon=True).start()
        self._least = number
        for _ in range(number):
            self._start()
        try:
            yield
        finally:
            self._ended.set()
            # A thread that waits for a database must not delay the exit for
            # long.
            end = time.monotonic() + 4 * LOOK_EVERY
            for thread in list(self._threads):
                thread.join(max(end - time.monotonic(), 0))
            self._sessions.close()

    def _load(self):
        "Load the modules of the named databases"
        for database in self._named:
            try:
                access.load(database)
            except Exception:
                logger.exception(
                    "the modules of '%s' cannot be loaded", database)

    def _start(self):
        "Start one more thread"
        thread = threading.Thread(
            target=self._run, name='bus-session', daemon=True)
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            # The running threads do the work.
            with self._lock:
                self._threads.discard(thread)
            logger.warning("no further thread can be started: %s", error)

    def _run(self):
        thread = threading.current_thread()
        try:
            while not self._ended.is_set():
                request = self._next()
                if request:
                    self._answer(request)
                elif self._is_spare(thread):
                    return
        finally:
            with self._lock:
                self._threads.discard(thread)

    def _next(self):
        "The next question, or None after a while without one"
        end = time.monotonic() + IDLE
        with self._lock:
            self._idle += 1
        request = None
        while (not request and not self._ended.is_set()
                and time.monotonic() < end):
            request = self._server.next_request(LOOK_EVERY)
            if not request:
                self._sessions.tick()
        with self._lock:
            self._idle -= 1
            is_last = not self._idle and len(self._threads) < THREADS_MAX
        if request and is_last:
            # This thread may wait for a database, so another one replaces it.
            self._start()
        return request

    def _is_spare(self, thread):
        "Whether the thread is surplus; if so, it is not counted any more"
        with self._lock:
            is_spare = len(self._threads) > self._least and self._idle > 0
            if is_spare:
                self._threads.discard(thread)
            return is_spare

    def _answer(self, request):
        try:
            self._answers[type(request)](request)
        except Exception:
            # The question counts as failed when it is dropped.
            logger.exception("a question of the bus server has failed")

    def _databases(self, request):
        request.answer(self._sessions.exist(request.names))

    def _check(self, request):
        checks = self._sessions.check(request.database, request.sessions)
        if 'valid' in checks:
            queues.ensure(self._bus, request.database)
        request.answer(checks)

    def _access(self, request):
        request.answer(access.readable(
                request.database, request.user, request.channels))

    def _listen(self, request):
        queues.ensure(self._bus, request.database)
