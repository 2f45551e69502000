"""The logging of trytond-bus, and its levels."""
import importlib.metadata
import logging
import os
import time

from . import settings

logger = logging.getLogger('trytond.bus')

# For the first and the last line of a server, which are logged by default
life = logging.getLogger('trytond.bus.server')


def configure(options):
    """Log a line at the start of a server and at its end, unless the
    administrator has configured logging"""
    if options.logconf:
        return
    # More verbosity never hides a line that is there without it.
    if options.verbose or 'TRYTOND_LOGGING_LEVEL' not in os.environ:
        life.setLevel(logging.INFO)


def quieten():
    "Drop the lines of the connection pool"
    logging.getLogger('psycopg.pool').addFilter(_is_wanted)


def _is_wanted(record):
    """Whether a line of the connection pool is logged. The pool logs each
    attempt to connect, and the bus or the command logs a lost connection"""
    return (
        record.levelno >= logging.ERROR
        or logger.isEnabledFor(logging.DEBUG))


def in_a_line(error):
    "The text of an error, which may have several lines, in one line"
    return ' '.join(str(error).split())


class Life:
    "The life of a server, as a context manager that logs its two ends"

    def __init__(self, server, options, databases):
        self._server = server
        self._options = options
        self._databases = databases

    def __enter__(self):
        self._begun = time.monotonic()
        life.info("bus server %s starts: %s", version(), '; '.join([
                    "listens on %s" % ', '.join(self._server.addresses),
                    *self._ssl(), self._listened(), self._journal(),
                    "at most %d files, %d polls, %d connections" % (
                        self._server.descriptors,
                        self._options['max_polls'],
                        self._options['max_connections'])]))

    def _ssl(self):
        if self._options['ssl']:
            yield "TLS with '%s'" % self._options['ssl'][0]

    def _listened(self):
        if not self._databases:
            return "databases from their first poll on"
        return "databases %s, others from their first poll on" % (
            in_short(self._databases))

    def _journal(self):
        if not settings.journal():
            return "no journal"
        return "journal of %d s" % self._options['journal_timeout']

    def __exit__(self, *_):
        life.info(
            "bus server has ended, after %d s",
            time.monotonic() - self._begun)


def version():
    "The running versions, such as '0.1.0 (trytond 8.2.3)'"
    return "%s (trytond %s)" % (
        importlib.metadata.version('trytond-fastbus'),
        importlib.metadata.version('trytond'))


def in_short(names, most=5):
    "Names separated by commas; of many, the first ones and a count"
    names = list(names)
    text = ', '.join(names[:most])
    if len(names) > most:
        text += " and %d more" % (len(names) - most)
    return text
