"""The chats that a user may follow: those of the records that the user may
read."""
import logging
import time
from collections import defaultdict

from trytond import backend
from trytond.exceptions import UserError
from trytond.pool import Pool
from trytond.transaction import Transaction

from . import settings
from .logs import in_a_line

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# Seconds between two log lines about a database that fails
LOG_EVERY = 60

# Seconds for which a question waits for trytond's lock. From 8.0 on, trytond
# holds it while it loads the modules of any database.
LOCK_TIMEOUT = 2

_logged = {}


def timeout():
    """Seconds for which an answer is cached, or None if polls that trytond
    serves may follow any chat"""
    if settings.check_access(True):
        return settings.session_cache()
    return None


def readable(database, user, channels):
    """Return the channels `chat:<model>,<id>` whose record the user may read,
    or None if that can't be decided now"""
    try:
        load(database)
        retry = settings.read('retry', 'database')
        for count in range(retry, -1, -1):
            with Transaction(new=True).start(database, user, readonly=True):
                try:
                    return list(_readable(channels))
                except backend.DatabaseOperationalError:
                    if not count:
                        raise
    except UserError:
        # The user does not exist (any more).
        return []
    except Exception as error:
        _log(database, error)
        return None


def _readable(channels):
    ids = defaultdict(list)
    for channel in channels:
        model, id_ = channel.removeprefix('chat:').split(',')
        ids[model].append(int(id_))
    pool = Pool()
    transaction = Transaction()
    # The context as clients send it, because rules may depend on it.
    context = pool.get('res.user').get_preferences(context_only=True)
    # A user may read an inactive record as well.
    with transaction.set_context(
            context, _check_access=True, active_test=False):
        for model in ids.keys() & dict(pool.iterobject()).keys():
            for record in _records(pool.get(model), ids[model]):
                yield 'chat:%s' % record


def _records(Model, ids):
    "The records with these ids that the user may read"
    # The modules have imported it already. Without them it takes memory.
    from trytond.model import ModelStorage
    Channel = Pool().get('ir.chat.channel')
    if not issubclass(Model, ModelStorage):
        return
    try:
        records = Model.search([('id', 'in', ids)], order=[])
    except UserError:
        return
    for record in records:
        # trytond's own check, which may require more one day.
        try:
            Channel.check_access(record)
        except UserError:
            continue
        yield record


def load(database):
    """Load the modules of the database, unless they are loaded.

    Raises TimeoutError while the modules of another database are loaded.
    """
    if not Pool._lock.acquire(timeout=LOCK_TIMEOUT):
        raise TimeoutError("trytond loads the modules of another database")
    try:
        # The pool that this makes needs no lock later.
        is_loaded = _is_loaded(database)
    finally:
        Pool._lock.release()
    if is_loaded:
        return
    try:
        Pool(database).init()
    except BaseException:
        # Otherwise trytond would treat them as loaded.
        Pool.stop(database)
        raise


def _is_loaded(database):
    # trytond lists a database after any transaction in it.
    if database not in Pool.database_list():
        return False
    try:
        return bool(Pool(database).get('ir.model'))
    except KeyError:
        return False


def _log(database, error):
    now = time.monotonic()
    if now - _logged.get(database, -LOG_EVERY) < LOG_EVERY:
        return
    _logged[database] = now
    is_operational = isinstance(error, backend.DatabaseOperationalError)
    logger.warning(
        "chats on '%s' are not followed, because access cannot be checked: "
        "%s",
        database, in_a_line(error), exc_info=not is_operational)
