"""Publishing a message in the transaction."""
import json

from . import _native, journal, settings
from .listener import part_channel
from .queues import deliver, ring


def send(bus, transaction, channel, message):
    """Send a message, in ASCII JSON, when the transaction commits.

    Raises ValueError if it is larger than [bus] message_size.
    """
    payload = '{"channel":%s,"message":%s}' % (json.dumps(channel), message)
    limit = settings.message_size()
    if len(payload) > limit:
        raise ValueError(
            "the message takes %d bytes, but [bus] message_size allows only %d"
            % (len(payload), limit))
    database, connection = transaction.database, transaction.connection
    if _write(bus, transaction, channel, message):
        return
    if not database.has_channel():
        _finish(bus, transaction, payloads=[payload])
    elif len(payload) > _native.PAYLOAD_MAX:
        cursor = connection.cursor()
        cursor.execute(
            'SELECT pg_notify(%s, part) FROM unnest(%s::text[]) AS part',
            (part_channel(bus), _native.split(payload)))
    elif hasattr(database, 'notify'):
        database.notify(connection, bus._channel, payload)
    else:
        cursor = connection.cursor()
        cursor.execute(
            'SELECT pg_notify(%s, %s)', (bus._channel, payload))


def _write(bus, transaction, channel, message):
    "Write the message to the journal; return whether that succeeded"
    table = journal.of(transaction.database.name, bus._channel)
    if not table or not table.insert(transaction, channel, message):
        return False
    if not transaction.database.has_channel():
        # The waiters of this process need not wait for the next look.
        _finish(bus, transaction, journaled=True)
    return True


def _finish(bus, transaction, payloads=(), journaled=False):
    """Inform the subscribers of this process after trytond's commit.

    SQLite has no NOTIFY, so without a journal its messages reach only this
    process.
    """
    manager = transaction.join(
        _LocalDataManager(bus, transaction.database.name))
    manager.payloads.extend(payloads)
    manager.journaled |= journaled
    # On SQLite, None stands for autocommit.
    if getattr(transaction.connection, 'isolation_level', '') is None:
        manager.tpc_finish(transaction)


class _LocalDataManager:
    "Puts the payloads of a transaction on the bus of this process"

    def __init__(self, bus, database):
        self.bus = bus
        self.database = database
        self.tpc_abort(None)

    def __eq__(self, other):
        # All are equal, so that join finds the one of the transaction.
        return isinstance(other, _LocalDataManager)

    __hash__ = None

    def tpc_begin(self, transaction):
        pass

    def commit(self, transaction):
        pass

    def tpc_vote(self, transaction):
        pass

    def tpc_finish(self, transaction):
        payloads, journaled = self.payloads, self.journaled
        self.tpc_abort(transaction)
        if payloads:
            deliver(self.bus, self.database, payloads)
        if journaled:
            ring(self.bus, self.database)

    def tpc_abort(self, transaction):
        self.payloads, self.journaled = [], False
