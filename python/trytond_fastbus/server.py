"""The bus server, between its native part and trytond."""
import logging
import queue
import signal
import threading
import time

from trytond import backend

from . import Bus, _native, certificate, journal, logs, queues, settings
from .allocator import Allocator
from .logs import in_a_line
from .questions import Questions

logger = logging.getLogger('trytond.bus')

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# The methods of a class of the bus that trytond calls
METHODS = ['publish', 'subscribe']

# Seconds for which the main thread waits for a signal before it checks whether
# the server still runs
LOOK_EVERY = .2

# Seconds for which the start waits for a database that does not answer
PREPARE_TIMEOUT = 5

# Seconds between two calls that keep the listeners of the named databases
# running without polls
LISTEN_EVERY = 60


def serve(databases=(), listen=None, admin_listen=None):
    """Serve until SIGTERM or SIGINT, and return the exit status of the
    process. SIGHUP makes it read its certificate again.

    The named databases have a listener from the beginning, the others from the
    first poll on. listen and admin_listen, addresses separated by commas,
    replace the options of that name in the configuration.

    Raises ValueError for a configuration that can't be used, for example a
    certificate; OSError for an address that can't be listened on; RuntimeError
    if messages can't reach the server, because without a journal the database
    backend needs channels.
    """
    options = settings.server()
    bus = bus_class()
    if not settings.journal() and not backend.Database().has_channel():
        raise RuntimeError(
            "on the database backend '%s', messages reach the bus server only "
            "with the journal: set [bus] journal = True, or use PostgreSQL"
            % backend.name)
    if listen is not None:
        options['listen'] = settings.addresses(listen)
    if admin_listen is not None:
        options['admin_listen'] = settings.addresses(admin_listen)
    if options['ssl']:
        _native.check_certificate(*options['ssl'])
        certificate.warn(*options['ssl'])
    # The tables are made only after the configuration is validated.
    _prepare(databases)
    signals = queue.SimpleQueue()
    for number in SIGNALS:
        signal.signal(number, lambda number, _: signals.put(number))
    server = _native.BusServer(options)
    questions = Questions(server, bus, databases)
    with questions.threads(options['session_threads']):
        with logs.Life(server, options, databases):
            _warn(options, server, databases)
            _listen(bus, databases)
            server.ready()
            return _wait(server, signals, bus, databases, options)


def _prepare(databases):
    """Make the missing journals of the databases that answer now.

    Raises RuntimeError for a journal that can't be made.
    """
    failures = queue.SimpleQueue()
    threads = [
        threading.Thread(
            target=_prepare_one, args=(name, failures), daemon=True)
        for name in databases if journal.of(name)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PREPARE_TIMEOUT
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    if not failures.empty():
        raise failures.get()


def _prepare_one(name, failures):
    try:
        database = backend.Database(name)
        connection = database.get_connection(autocommit=True)
        try:
            journal.of(name).prepare(connection)
        finally:
            database.put_connection(connection)
    except RuntimeError as error:
        failures.put(error)
    except Exception as error:
        # The listener tries again. A driver has other errors as well, such as
        # that for a file that is no database.
        logger.warning(
            "no connection to '%s': %s", name, in_a_line(error))


def bus_class():
    """The class of the bus: the configured class if it is a subclass of ours,
    else our class"""
    name = settings.read('class')
    if name:
        from trytond.tools import resolve
        try:
            configured = resolve(name)
        except Exception as error:
            # A module may raise anything when it is imported.
            raise settings.Invalid([settings.problem(
                        'class', 'bus', name, "cannot be imported: %s: %s" % (
                            type(error).__name__, error))]) from error
        if isinstance(configured, type) and issubclass(configured, Bus):
            return configured
        if not all(hasattr(configured, name) for name in METHODS):
            raise settings.Invalid([settings.problem(
                        'class', 'bus', name, "has no methods %s: set it to "
                        "trytond_fastbus.Bus" % ' and '.join(METHODS))])
    return Bus


def _warn(options, server, databases):
    if not options['allow_subscribe']:
        logger.warning(
            "[bus] allow_subscribe is off, so clients get 501 and stop until "
            "their next login: set it to True")
    needed = settings.descriptors(options, len(databases))
    if server.descriptors < needed:
        logger.warning(
            "this process may open %d files, but [bus] max_connections and "
            "%d databases need %d: raise the limit (LimitNOFILE of systemd, "
            "ulimit -n)", server.descriptors, len(databases), needed)


def _listen(bus, databases):
    for database in databases:
        queues.ensure(bus, database)


def _wait(server, signals, bus, databases, options):
    draining = False
    allocator = Allocator()
    listened = time.monotonic()
    while not server.wait(0):
        try:
            number = signals.get(timeout=LOOK_EVERY)
        except queue.Empty:
            if time.monotonic() - listened > LISTEN_EVERY:
                listened = time.monotonic()
                _listen(bus, databases)
                allocator.give_back()
            continue
        if number == signal.SIGHUP:
            _reload(server, options['ssl'])
            continue
        if draining:
            logger.warning("bus server ends at once")
            return 1
        draining = True
        logger.info("bus server answers the waiting polls and ends")
        server.drain()
    return 0


def _reload(server, ssl):
    try:
        if server.reload():
            logger.info("bus server has read its certificate again")
            certificate.warn(*ssl)
        else:
            logger.warning(
                "bus server has no certificate to read again, because it does "
                "not speak TLS")
    except ValueError as error:
        logger.error(
            "bus server keeps its certificate, because the new one cannot be "
            "used: %s", error)
