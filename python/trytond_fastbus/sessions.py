"""The session checks of the bus server, many in one query."""
import datetime as dt
import logging
import math
import time
from collections import defaultdict

from sql import Flavor
from trytond import backend, security
from trytond.pool import Pool
from werkzeug.exceptions import NotFound

from . import access, addresses, settings
from .logs import in_a_line
from .readonly import Connections, NoDatabase
from .refusals import Refusals

logger = logging.getLogger('trytond.bus')

# The longest token that is looked up, in characters; trytond's have 64
TOKEN_MAX = 1024

# The greatest id that a user may have
USER_MAX = 2 ** 31 - 1

# Seconds between two log lines about a database that fails
LOG_EVERY = 60

NO_ADDRESS = (
    "'%s' is no address: check X-Forwarded-For and [bus] num_proxies")
OTHER_ADDRESS = (
    "it was opened from '%s': check X-Forwarded-For and [bus] num_proxies")


class Sessions:
    """Checks sessions as `ir.session.check` of trytond does.

    No session is deleted, and no module is loaded.
    """

    def __init__(self, named):
        self._named = set(named)
        self._connections = Connections()
        self._refusals = Refusals()
        # By database: the time at which its failure was logged
        self._failures = {}

    def close(self):
        self._refusals.flush()
        self._connections.close()

    def tick(self):
        "Do the periodic work; called about every second"
        self._refusals.tick()
        self._connections.tick()

    def exist(self, names):
        """Return for each database whether it exists; None if that can't be
        checked now"""
        asked = [name for name in names if name not in self._named]
        try:
            found = self._connections.exist(asked) if asked else ()
        except Exception as error:
            self._fail(None, error)
            return None
        return [name in self._named or name in found for name in names]

    def check(self, database, sessions):
        """Return for each (user, token, address, is_local) of a database
        'valid', 'invalid', 'unknown' if the database is unknown, or 'failed'
        if the session can't be checked now"""
        if settings.session_check() == 'trytond':
            return [
                self._check_by_trytond(database, *session)
                for session in sessions]
        try:
            found = self._find(database, {
                    token for _, token, *_ in sessions if _is_token(token)})
        except NoDatabase as error:
            # Any client may ask for other names.
            if database in self._named:
                self._fail(database, error)
            return ['unknown'] * len(sessions)
        except Exception as error:
            # The role may lack a privilege, or a restore be under way.
            self._fail(database, error)
            return ['failed'] * len(sessions)
        if self._failures.pop(database, None):
            logger.info("sessions on '%s' are checked again", database)
        # As trytond compares them, without a time zone
        now = (dt.datetime.now() - dt.datetime(1970, 1, 1)).total_seconds()
        max_age = settings.read('max_age', 'session')
        checks = []
        for user, token, address, is_local in sessions:
            refusal = _refusal(
                found.get(token, ()), user, address, is_local, now - max_age,
                now + max_age)
            if refusal:
                self._refusals.add(database, user, address, *refusal)
            checks.append('invalid' if refusal else 'valid')
        return checks

    def _fail(self, database, error):
        "Log that sessions of a database can't be checked, once in a while"
        now = time.monotonic()
        if now - self._failures.get(database, -math.inf) < LOG_EVERY:
            return
        self._failures[database] = now
        trace = None if isinstance(
            error, (backend.DatabaseOperationalError, NoDatabase, OSError)
            ) else error
        if database is None:
            logger.warning(
                "databases cannot be looked up: %s", in_a_line(error),
                exc_info=trace)
        else:
            logger.warning(
                "session check on '%s' failed: %s",
                database, in_a_line(error), exc_info=trace)

    def _find(self, database, tokens):
        "The rows (user, seconds[, address]) of sessions, by their keys"
        found = defaultdict(list)
        if tokens:
            for row in self._connections.sessions(database, tokens):
                found[row[0]].append(row[1:])
        return found

    def _check_by_trytond(self, database, user, token, address, is_local):
        # As a transaction does; security.check may run without one.
        Flavor.set(backend.Database.flavor)
        if not _is_token(token) or user > USER_MAX:
            self._refusals.add(database, user, address, 'failed')
            return 'invalid'
        try:
            # With a pool it needs the modules. Before 7.8 it always does.
            if not settings.MODULE or database in Pool.database_list():
                access.load(database)
            remote_addrs = addresses.candidates(address, is_local)
            if not settings.MODULE:
                # In this series a session has no address.
                del remote_addrs[1:]
            is_valid = any(
                security.check(
                    database, user, token,
                    {'_request': {'remote_addr': remote_addr}})
                for remote_addr in remote_addrs)
        except NotFound:
            return 'unknown'
        except ValueError:
            self._refusals.add(
                database, user, address, 'failed', NO_ADDRESS % address)
            return 'invalid'
        except Exception as error:
            self._fail(database, error)
            return 'failed'
        return 'valid' if is_valid else 'invalid'


def _is_token(token):
    return token.isascii() and '\0' not in token and len(token) <= TOKEN_MAX


def _refusal(rows, user, address, is_local, after, before):
    """The reason to refuse a session, by the rows of its token: None, or a
    reason and a detail for the log"""
    refusal = 'failed', ''
    for owner, seconds, *opened in rows:
        if owner != user:
            continue
        try:
            # Sessions have an address from 7.8 on.
            is_same = (
                not opened or opened[0] == address
                or addresses.is_same(opened[0], address, is_local))
        except ValueError:
            return 'failed', NO_ADDRESS % address
        if not is_same:
            refusal = 'failed', OTHER_ADDRESS % opened[0]
        elif seconds is None or not after < seconds < before:
            refusal = 'expired', ''
        else:
            return None
    return refusal
