"""Publishing: with the transaction's commit, and without PostgreSQL."""
import json
import time

from . import samples, sides
from .report import Row
from .timing import per_call

TITLE = "(d) publish"
# The number that fits into one NOTIFY
COPIES = 15


def run(postgresql, quick):
    rounds = 5 if quick else 25
    with sides.both(postgresql) as both:
        for count, transactions, least in [
                (1, 50, 1), (10, 10, 1.1), (1000, 1, 1.1)]:
            figures = sample(both, rounds, commits, count, transactions)
            yield Row(
                'd', "with commit, %s a transaction, each"
                % format(count, ','),
                'µs', **figures, least=least, statistic='median')
        for kind in ['notification', 'chat']:
            figures = sample(both, rounds, publishes, kind)
            yield Row(
                'd', "a %s, without PostgreSQL" % kind, 'µs', **figures)
        for kind in ['notification', 'chat']:
            figures = sample(both, rounds, encodes, kind)
            yield Row(
                'd', "its encoding alone, a %s" % kind, 'µs', **figures,
                least=5)


def sample(both, rounds, *call):
    figures = {}
    for _ in range(rounds):
        for side in both:
            figures.setdefault(side.name, []).append(side(*call))
    return figures


def commits(database, count, transactions):
    times = [commit(database, count) for _ in range(transactions)]
    return sorted(times)[len(times) // 2] / count * 1e6


def commit(database, count, write=None):
    """The seconds to publish this number of messages and to commit.

    write is the statement before them in the transaction.
    """
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    messages = [samples.notification() for _ in range(count)]
    with Transaction().start(database, 0) as transaction:
        if write:
            transaction.connection.cursor().execute(write)
        start = time.perf_counter()
        for message in messages:
            Bus.publish('user:1', message)
        transaction.commit()
        return time.perf_counter() - start


def publishes(database, kind):
    "As commits, but nothing is sent"
    return publish_unsent(database, getattr(samples, kind)())


def encodes(database, kind):
    message = {**getattr(samples, kind)(), 'message_id': 'x' * 36}
    if sides.is_ours():
        # The encoder cannot be called alone. This is the time that each of
        # many copies adds to an empty message.
        copies = {'copies': [dict(message) for _ in range(COPIES)]}
        return (
            publish_unsent(database, copies)
            - publish_unsent(database, {})) / COPIES
    from trytond.protocols.jsonrpc import JSONEncoder
    return per_call(lambda: json.dumps(
            {'channel': 'user:1', 'message': message}, cls=JSONEncoder,
            separators=(',', ':'))) * 1e6


def publish_unsent(database, message):
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    with Transaction().start(database, 0) as transaction:
        transaction.database.notify = lambda *args: None
        try:
            return per_call(lambda: Bus.publish('user:1', message)) * 1e6
        finally:
            del transaction.database.notify
