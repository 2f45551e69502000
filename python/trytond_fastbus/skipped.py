"""Log lines of notifications and rows that are no messages, at a limited
rate, because any role of a database can send any number of them."""
import logging
import time

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# The limit of lines for a database, in this number of seconds
LINES, SECONDS = 100, 60

# By database: the begin of its current period, and the lines in it
_periods = {}


def log(database, what, reasons):
    "Log why notifications or rows are skipped; what is one of them"
    for reason in reasons:
        now = time.monotonic()
        begin, lines = _periods.get(database, (now, 0))
        if now - begin >= SECONDS:
            begin, lines = now, 0
        _periods[database] = begin, lines + 1
        if lines < LINES:
            logger.error(
                "bus listener on '%s' skipped %s: %s", database, what, reason)
        elif lines == LINES:
            logger.error(
                "bus listener on '%s' skips more, and only counts them for "
                "the rest of %d seconds", database, SECONDS)
