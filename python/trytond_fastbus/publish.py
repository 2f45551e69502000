"""Sending a message in the transaction."""
from . import _native, settings
from .listener import deliver, part_channel


def send(bus, transaction, payload):
    """Send the payload, in ASCII, once the transaction is committed.

    Raises ValueError when it is larger than [bus] message_size.
    """
    limit = settings.message_size()
    if len(payload) > limit:
        raise ValueError(
            "the message takes %d bytes, [bus] message_size allows %d"
            % (len(payload), limit))
    database, connection = transaction.database, transaction.connection
    if not database.has_channel():
        _send_local(bus, transaction, payload)
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


def _send_local(bus, transaction, payload):
    """Send to the subscribers of this process.

    What the database can't carry to the others (SQLite) reaches those here
    when trytond commits the transaction.
    """
    manager = transaction.join(
        _LocalDataManager(bus, transaction.database.name))
    manager.payloads.append(payload)
    # None stands for autocommit, on SQLite.
    if getattr(transaction.connection, 'isolation_level', '') is None:
        manager.tpc_finish(transaction)


class _LocalDataManager:
    "Puts the payloads of a transaction on the bus of this process"

    def __init__(self, bus, database):
        self.bus = bus
        self.database = database
        self.payloads = []

    def __eq__(self, other):
        # There is one for each transaction, found by join.
        return isinstance(other, _LocalDataManager)

    __hash__ = None

    def tpc_begin(self, transaction):
        pass

    def commit(self, transaction):
        pass

    def tpc_vote(self, transaction):
        pass

    def tpc_finish(self, transaction):
        payloads, self.payloads = self.payloads, []
        deliver(self.bus, self.database, payloads)

    def tpc_abort(self, transaction):
        self.payloads = []
