"""The two sides: a process and a database each, which work in turns."""
import contextlib
import itertools
import multiprocessing
import os
import tempfile
import time
import traceback
from pathlib import Path

from tests.support import wait_until

SIDES = ['stock', 'ours']
# The history holds everything, and no poll times out. The databases are empty,
# so trytond must not look for its tables.
CONFIG = """
[database]
uri = %(uri)s
path = %(path)s
[cache]
clean_timeout = 86400
[bus]
class = %(class)s
journal = %(journal)s
allow_subscribe = True
cache_timeout = 86400
cache_size = 1073741824
long_polling_timeout = 600
"""
NUDGE = '{"channel":"nudge","message":{"message_id":"nudge"}}'
_numbers = itertools.count()
OURS = 'trytond_fastbus.Bus'
# The class and whether there is a journal
BUSES = {
    'stock': ('', False), 'ours': (OURS, False), 'journal': (OURS, True)}


class Side:
    """A process of one side, called by the measuring process.

    Its database is a new one unless it is given. name is 'journal' for ours
    with the journal.
    """

    def __init__(self, name, postgresql, database=None, **environ):
        self.name = name
        self.database = database or 'bench_%d' % next(_numbers)
        if not database:
            postgresql.create_database(self.database)
        context = multiprocessing.get_context('spawn')
        self._connection, connection = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(
                connection, name, postgresql.uri,
                getattr(postgresql, 'path', '')),
            daemon=True)
        before = dict(os.environ)
        os.environ.update(environ)
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        connection.close()

    def __call__(self, function, *args):
        "Return function(database, *args), called there"
        self.start(function, *args)
        return self.result()

    def start(self, function, *args):
        "Begin a call whose result is read later"
        self._connection.send((function, self.database, args))

    def result(self):
        result, error = self._connection.recv()
        if error:
            raise RuntimeError(f"{self.name}: {error}")
        return result

    def close(self):
        self._connection.close()
        self._process.join(10)
        self._process.kill()
        self._process.join()


@contextlib.contextmanager
def both(postgresql, names=SIDES, **environ):
    "The stock side and ours, or the named ones, just started"
    with contextlib.ExitStack() as stack:
        sides = []
        for name in names:
            sides.append(Side(name, postgresql, **environ))
            stack.callback(sides[-1].close)
        yield sides


@contextlib.contextmanager
def several(postgresql, names, count):
    """For each name a list of this number of sides, with one database for all
    of them"""
    with contextlib.ExitStack() as stack:
        groups = {}
        for name in names:
            group = groups[name] = []
            for _ in range(count):
                group.append(Side(
                        name, postgresql, group and group[0].database))
                stack.callback(group[-1].close)
        yield groups


def _serve(connection, name, uri, path):
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / 'trytond.conf'
        bus, journal = BUSES[name]
        file.write_text(CONFIG % {
                'uri': uri, 'path': path, 'class': bus, 'journal': journal})
        from trytond import config
        config.update_etc(str(file))
    while True:
        try:
            function, *args = connection.recv()
        except EOFError:
            # Threads that still wait must not hold the exit.
            os._exit(0)
        try:
            answer = function(args[0], *args[1]), None
        except Exception:
            answer = None, traceback.format_exc()
        connection.send(answer)


def is_ours():
    from trytond.bus import Bus
    return Bus.__module__.startswith('trytond_fastbus')


def retained(database):
    "How many messages are retained, on the stock side without nudges"
    from trytond.bus import Bus
    queue = Bus._messages.get(database)
    if queue is None:
        return 0
    if is_ours():
        return len(queue)
    return sum(message.channel != 'nudge' for message in queue._messages)


def waiting(database, channel):
    "How many subscribers wait, which all ask for the channel"
    if is_ours():
        from trytond_fastbus import statistics
        return statistics()[database]['waiting']
    from trytond.bus import Bus
    queue = Bus._queues[os.getpid(), database]
    return len(queue['events'].get(channel, []))


def listen(database):
    "Start the listener, by a subscription that ends at once"
    from trytond import config
    from trytond.bus import Bus
    timeout = config.get('bus', 'long_polling_timeout')
    config.set('bus', 'long_polling_timeout', '0')
    Bus.subscribe(database, ['nothing'])
    config.set('bus', 'long_polling_timeout', timeout)

    def heard():
        send(database, ['{"channel":"x","message":{"message_id":"x"}}'])
        return retained(database)

    wait_until(heard)
    # Messages that were sent before it listened are skipped as well.
    time.sleep(.5)


def send(database, payloads):
    "Let PostgreSQL send the payloads, in one transaction"
    from trytond.transaction import Transaction
    with Transaction().start(database, 0) as transaction:
        transaction.connection.cursor().execute(
            "SELECT pg_notify('bus', payload) "
            "FROM unnest(%s::text[]) AS payload", (payloads,))
        transaction.commit()


def fill(database, payloads, batch=1000):
    "Let the payloads be retained, in batches that leave no large garbage"
    for start in range(0, len(payloads), batch):
        part = payloads[start:start + batch]
        wanted = retained(database) + len(part)
        send(database, part)
        while retained(database) < wanted:
            try:
                wait_until(
                    lambda: retained(database) >= wanted,  # noqa: B023
                    deadline=.5)
            except TimeoutError:
                # Stock overlooks messages that arrive during its keep-alive
                # query until another one arrives.
                send(database, [NUDGE])
