"""Log lines of refused sessions, at a limited rate."""
import logging
import threading
import time

logger = logging.getLogger('trytond.bus')

# Seconds between two lines for an address
LOG_EVERY = 10

# The limit of addresses with lines of their own
ADDRESSES_MAX = 1000


class Refusals:
    "The refusals of the last seconds, by address"

    def __init__(self):
        self._addresses = {}
        self._lock = threading.Lock()

    def add(self, database, user, address, reason, detail=''):
        """Log that a session is refused, or count it for the next line; reason
        is 'failed' or 'expired'"""
        with self._lock:
            if (address not in self._addresses
                    and len(self._addresses) >= ADDRESSES_MAX):
                address = "other addresses"
            refused = self._addresses.get(address)
            if refused:
                refused[1] += 1
                return
            self._addresses[address] = [time.monotonic() + LOG_EVERY, 0]
        # trytond's own words, for tools that match them
        logger.log(
            logging.INFO if reason == 'expired' else logging.ERROR,
            "session %s for '%s' from '%s' on database '%s'%s",
            reason, user, address, database, detail and ': ' + detail)

    def tick(self, everything=False):
        "Log the number of further refusals of the addresses that are due"
        now = time.monotonic()
        lines = []
        with self._lock:
            for address, (until, count) in list(self._addresses.items()):
                if now < until and not everything:
                    continue
                if count:
                    lines.append((address, count))
                    self._addresses[address] = [now + LOG_EVERY, 0]
                else:
                    del self._addresses[address]
        for address, count in lines:
            logger.error(
                "session failed for %d more polls from '%s' in the last %d "
                "seconds", count, address, LOG_EVERY)

    def flush(self):
        self.tick(everything=True)
