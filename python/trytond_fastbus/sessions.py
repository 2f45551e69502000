"""The sessions that the bus server asks for, checked by trytond."""
import logging
import threading
import time
from contextlib import contextmanager

from sql import Flavor
from trytond import backend, security
from trytond.pool import Pool
from trytond.transaction import Transaction
from werkzeug.exceptions import NotFound

from . import access, addresses, listener, settings

logger = logging.getLogger('trytond.bus')

# Seconds for which a thread waits before it looks whether it is to end
LOOK_EVERY = .5

# Seconds for which the list of the databases is remembered
LIST_TIMEOUT = 10


# security.check returns its connection within a transaction where there is no
# module pool, which psycopg warns of each time.
logging.getLogger('psycopg.pool').addFilter(
    lambda record: not str(record.msg).startswith(
        'rolling back returned connection'))


class Sessions:
    "Answers what the bus server wants to know of trytond"

    def __init__(self, server, bus, databases):
        self._server = server
        self._bus = bus
        self._named = set(databases)
        self._listed = set()
        self._list_time = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @contextmanager
    def threads(self, number):
        "Answer in so many threads"
        # Before 7.8 a session can't be checked without the module pool.
        needs_pool = not settings.MODULE or settings.check_access(False)
        if needs_pool:
            Pool.start()
        threads = [
            threading.Thread(
                target=self._run, name='bus-session-%d' % index, daemon=True)
            for index in range(number)]
        if needs_pool:
            threads.append(threading.Thread(
                    target=self._load, name='bus-pool', daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            # One that waits for a database must not hold the exit for long.
            end = time.monotonic() + 4 * LOOK_EVERY
            for thread in threads:
                thread.join(max(end - time.monotonic(), 0))

    def _load(self):
        "Load the modules of the databases that are named"
        for database in self._named:
            try:
                access.load(database)
            except Exception:
                logger.exception(
                    "the modules of '%s' can not be loaded", database)

    def _run(self):
        # As in a transaction, of which security.check may do without.
        Flavor.set(backend.Database.flavor)
        while not self._ended.is_set():
            request = self._server.next_request(LOOK_EVERY)
            if not request:
                continue
            try:
                if request.user is None:
                    listener.ensure(self._bus, request.database)
                elif request.channels is not None:
                    request.answer_readable(access.readable(
                            request.database, request.user, request.channels))
                else:
                    request.answer(self.check(request))
            except Exception:
                logger.exception(
                    "session check on '%s' failed", request.database)
                request.answer('failed')

    def check(self, request):
        """Say whether the session is 'valid' or 'invalid', its database
        'unknown', or whether that can't be told now ('failed')"""
        try:
            remote_addrs = addresses.candidates(
                request.address, request.is_local)
            if not settings.MODULE:
                # There a session has no address.
                del remote_addrs[1:]
        except ValueError:
            logger.error(
                "session failed for '%s': '%s' is no address, check "
                "X-Forwarded-For and [bus] num_proxies",
                request.user, request.address)
            return 'invalid'
        try:
            if not self._is_known(request.database):
                return 'unknown'
            is_valid = any(
                security.check(
                    request.database, request.user, request.token,
                    {'_request': {'remote_addr': remote_addr}})
                for remote_addr in remote_addrs)
        except NotFound:
            return 'unknown'
        except backend.DatabaseOperationalError as error:
            # It may have been dropped.
            self._listed.discard(request.database)
            logger.warning(
                "session check on '%s' failed: %s",
                request.database, str(error).strip())
            return 'failed'
        if not is_valid:
            return 'invalid'
        listener.ensure(self._bus, request.database)
        return 'valid'

    def _is_known(self, database):
        if database in self._named or database in self._listed:
            return True
        with self._lock:
            now = time.monotonic()
            if self._list_time is None or now - self._list_time > LIST_TIMEOUT:
                # trytond remembers it for longer.
                getattr(backend.Database, '_list_cache', {}).clear()
                with Transaction().start(
                        None, 0, readonly=True, close=True) as transaction:
                    self._listed = set(transaction.database.list())
                self._list_time = now
            return database in self._listed
