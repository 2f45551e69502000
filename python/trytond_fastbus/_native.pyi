"""The engine of trytond-fastbus."""
import threading
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, ClassVar, final

__all__ = [
    'AccessRequest', 'Alarm', 'Assembly', 'Bell', 'Bus', 'BusServer',
    'DatabaseBus', 'DatabasesRequest', 'Deadline', 'ListenerRequest',
    'PAYLOAD_MAX', 'SessionsRequest', 'WokenQueue', '_MessageQueue',
    'check_address', 'check_certificate', 'close', 'forked', 'metrics',
    'notify', 'split', 'statistics', 'watch']

# The most bytes that PostgreSQL takes as the payload of a NOTIFY
PAYLOAD_MAX: int

class Bus:
    """The message bus, in place of trytond's `LongPollingBus`.

    All methods are of the class, and call each other through it, so that a
    subclass may override them.
    """

    _channel: ClassVar[str]
    _queues: ClassVar[dict[tuple[int, str], dict[str, Any]]]
    _queues_lock: ClassVar[_Locks]
    _messages: ClassVar[_Messages]

    def __new__(cls) -> Bus: ...
    @classmethod
    def publish(cls, channel: str, message: dict[Any, Any]) -> None:
        """Send a message to a channel, once the transaction is committed.

        It must be called in a transaction of trytond. The message is encoded
        at once, as trytond's JSON-RPC does; its key `message_id` is set to a
        new uuid4, as text.

        Raises TypeError for a channel that is no string, a message that is no
        dictionary and what can't be encoded; ValueError for a message that
        contains itself or is larger than `[bus] message_size` bytes;
        RuntimeError outside of a transaction. Nothing is sent then.
        """
    @classmethod
    def subscribe(
            cls, database: str, channels: Iterable[str],
            last_message: Any = None) -> dict[str, Any]:
        """Wait for the next message in any of the channels.

        `last_message` is the id of the last message that the client has
        received: what follows it is returned. Without it, or when it is not
        (any more) known, that is the oldest retained message.

        Returns what `create_response` makes of the message, or of None after
        `[bus] long_polling_timeout` seconds. Where the channels have exactly
        one `user:<id>`, other users' `notification:<id>` are left out, and,
        unless `[bus] check_access` is off, the `chat:<model>,<id>` of records
        that this user may not read. A notification to the user is returned on
        the client's channel, where the channels have exactly one
        `client:<id>`.

        Raises TypeError for channels that are no strings.
        """
    @classmethod
    def create_response(
            cls, channel: str | None, message: Any) -> dict[str, Any]:
        """The response with a message of a channel: a dictionary with the
        keys `message` and `channel`."""
    @classmethod
    def _subscribe_json(
            cls, database: str, channels: Iterable[str],
            last_message: Any = None) -> str:
        """As `subscribe`, in JSON: that of the message is as it was
        published."""
    @classmethod
    def _listen(cls, database: str) -> None:
        """Listen to a database for as long as it is subscribed to."""

def notify(
        title: Any, body: Any = None, priority: int = 1, user: Any = None,
        client: Any = None) -> Any:
    """Send a text message to a user's client, to be shown as a popup.

    It goes to the client with the id `client`; else to all clients of the
    user with the id `user`; else to the client in the context of the
    transaction; else to all clients of the current user: the transaction's
    or, where that is root, the one that root acts for
    (`set_user(0, set_context=True)`). Root itself never logs in, so without
    any other user nothing is sent.

    `title` is a line that sums it up, `body` a short text without markup,
    `priority` goes from 0 (low) to 3 (urgent): ValueError for others.
    """

def metrics() -> str:
    """What this process counts, in the format of Prometheus, with the names
    that the bus server has."""

def statistics() -> dict[str, dict[str, int]]:
    """What is on the buses of this process, by database.

    `retained`: messages; `bytes`: what they take, about; `waiting`:
    subscribers. Since the bus was first subscribed to: `published`: messages;
    `evicted`: those of them that can't be asked for any more before their
    time, for want of room; `skipped`: payloads that are no messages; `gaps`:
    times that messages may have been lost with the connection. `listening`:
    whether there is one. `number`: the greatest number of the journal that was
    read. `rewinds`: times that the numbers went back, so that all of the
    journal was read anew.
    """

@final
class _MessageQueue:
    """The retained messages of a database, under trytond's name.

    `timeout`: for how many seconds a message is retained, by `time.time`.
    """

    def __new__(cls, timeout: float) -> _MessageQueue: ...
    def append(self, channel: str, element: Any) -> None:
        """Append a message, a dictionary with a `message_id`, to a channel.

        Raises ValueError for any other element.
        """
    def get_next(
            self, channels: Iterable[str], from_id: Any = None,
            ) -> tuple[str | None, Any]:
        """The channel and the message after `from_id` in any of the channels,
        or `(None, None)`."""
    def __len__(self) -> int: ...

@final
class _Locks:
    def __getitem__(self, pid: Any, /) -> threading.Lock: ...

@final
class _Messages:
    def __len__(self) -> int: ...
    def __contains__(self, database: str, /) -> bool: ...
    def __getitem__(self, database: str, /) -> _MessageQueue: ...
    def get(self, database: str) -> _MessageQueue | None:
        """The queue of a database, or None."""
    def clear(self) -> None:
        """Drop the retained messages of all databases."""

@final
class Alarm:
    """Wakes the thread that listens."""

    def __new__(cls) -> Alarm: ...
    def fileno(self) -> int:
        """A descriptor that is readable while a bell has rung."""
    def bell(self, key: int) -> Bell:
        """A bell with this key."""
    def take(self) -> list[int]:
        """The keys of the bells that rang since the last call."""

@final
class Bell:
    """Rings an alarm for one database."""

    def ring(self) -> None:
        """Ring."""

@final
class DatabaseBus:
    """The bus of one database in this process."""

    def __new__(
            cls, name: str, cache_timeout: float, cache_size: int,
            message_size: int, journal_timeout: float | None) -> DatabaseBus:
        """`journal_timeout` is None where there is no journal."""
    def receive(
            self,
            notifications: list[tuple[bool, str]]) -> tuple[int, list[str]]:
        """Put the notifications of a batch on the bus, in their order: each
        is whether it is a part, and its payload. Where there is a journal it
        ends before the first that has a number, for which rows are to be
        read. Returns how many were dealt with, and why some of these were
        skipped."""
    @staticmethod
    def hinted(notifications: list[tuple[bool, str]]) -> tuple[int, int]:
        """How many notifications at the beginning of a batch have a number,
        and the greatest of these numbers."""
    def replay(
            self,
            rows: list[tuple[int, float, float, str | None]]) -> list[str]:
        """Put rows of the journal on the bus, in their order, but for those
        that were read before: each is its number, when it was committed and
        how long ago that is, in seconds, and its payload, None for a row that
        was read before. Returns why others than messages were skipped."""
    @property
    def has_journal(self) -> bool:
        """Whether there is a journal that can be read."""
    def use_journal(self, usable: bool) -> None:
        """Say whether there is a journal that can be read, where it is
        wanted."""
    @property
    def position(self) -> int:
        """The number of the row that was read last; 0 before the first, and
        while all rows are read anew."""
    def is_mark(self, number: int, created: float) -> bool:
        """Whether this is the number of the row that was read last, and when
        that was committed, in seconds."""
    def rewind(self) -> None:
        """Have all rows of the journal read anew, but for the messages that
        are known: the row that was read last is not among them."""
    def end_rewind(self) -> tuple[int, int] | None:
        """Note that all rows were read. Returns the greatest numbers before
        and now if numbers went back."""
    def set_bell(self, bell: Bell) -> None:
        """Set the bell by which the listener is told that a look is
        wanted."""
    def ring(self) -> None:
        """Tell the listener that a look is wanted."""
    def begin_look(self) -> None:
        """Begin a look into the database."""
    def end_look(self) -> None:
        """End the look: all that was found is on the bus."""
    def requests(
            self, limit: int) -> list[tuple[int, list[str], int, int]]:
        """The rows that polls wait for which know a message that left for
        want of room, at most so many: the key of each, its channels, and the
        numbers that it is above and up to."""
    def answer(
            self, key: int, row: tuple[int, float, str] | None) -> str | None:
        """Answer the request with this key by the row that was found, if one
        was. Returns why it was skipped where it is no message."""
    @property
    def evicted(self) -> int:
        """How many messages can't be asked for any more before their time, for
        want of room."""
    def connected(self) -> None:
        """Note that the database is listened to from now on."""
    def disconnected(self) -> None:
        """Note that the connection was lost, and with it what was under
        way."""
    def expire(self) -> None:
        """Drop the messages that are too old."""
    def listen(self) -> None:
        """Note that the database has a listener, and that somebody asked."""
    def abandon(self) -> None:
        """Note that it has none any more: the next poll starts another
        one."""
    @property
    def is_look_awaited(self) -> bool:
        """Whether a poll waits for a look."""
    def set_queue_usage(self, usage: float) -> None:
        """Note the part of PostgreSQL's queue of notifications that is in
        use, from 0 to 1."""
    def is_idle(self, seconds: float) -> bool:
        """Whether nobody waits, nor has asked for so many seconds."""
    def forget(self) -> None:
        """Forget the bus, whose database does not exist any more: all waits
        end."""
    def remove(self, seconds: float) -> bool:
        """Forget the bus if it is idle for so long; whether it was."""

@final
class BusServer:
    """The bus server, which answers on threads of its own.

    `options` has the keys that `trytond_fastbus.settings.server` returns.

    Raises ValueError for an address that can't be read and a certificate or
    key that can't be used, OSError for an address that can't be listened on.
    """

    def __new__(cls, options: dict[str, Any]) -> BusServer: ...
    @property
    def addresses(self) -> list[str]:
        """What the server listens on, such as `127.0.0.1:8001`."""
    @property
    def descriptors(self) -> int:
        """How many descriptors this process may have open."""
    def next_request(
            self, timeout: float) -> (
                DatabasesRequest | SessionsRequest | AccessRequest
                | ListenerRequest | None):
        """What is to be answered next, or None after `timeout` seconds."""
    def ready(self) -> None:
        """Tell the service manager that the server is ready."""
    def reload(self) -> bool:
        """Read the certificate and its key again, for the connections to
        come; whether there are any. Raises ValueError where they can't be
        used: the old ones stay."""
    def drain(self) -> None:
        """Begin to answer the waiting polls, and then end."""
    def wait(self, timeout: float) -> bool:
        """Wait for the end of the server, for at most `timeout` seconds;
        whether it has ended. Raises OSError where it has failed."""

@final
class DatabasesRequest:
    "Which of these databases exist?"

    @property
    def names(self) -> list[str]: ...
    def answer(self, exist: list[bool] | None) -> None:
        """Say of each whether it exists, or None where that can't be told.
        Only the first answer counts."""

@final
class SessionsRequest:
    "Which of these sessions of a database are valid?"

    @property
    def database(self) -> str: ...
    @property
    def sessions(self) -> list[tuple[int, str, str | None, bool]]:
        """Of each the id of the user, the token, the address of the client if
        it is known, and whether the connection comes from this host, and not
        through a proxy that is counted. What a proxy has added may be no
        address."""
    def answer(self, checks: list[str]) -> None:
        """Say of each what it is: 'valid', 'invalid', 'unknown' for one of an
        unknown database, or 'failed' where that can't be told. Raises
        ValueError for anything else. Only the first answer counts."""

@final
class AccessRequest:
    "Which of these chats may a user follow?"

    @property
    def database(self) -> str: ...
    @property
    def user(self) -> int:
        "The id of the user."
    @property
    def channels(self) -> list[str]: ...
    def answer(self, channels: list[str] | None) -> None:
        """Say which of them the user may follow, or None where that can't be
        told. Only the first answer counts."""

@final
class ListenerRequest:
    "A database that is to be listened to."

    @property
    def database(self) -> str: ...

@final
class WokenQueue:
    """The tokens of the greenlets that were woken and not yet resumed by
    their hub."""

    def __new__(cls, send: Callable[[], object]) -> WokenQueue: ...
    def take(self) -> list[int]:
        """Take the tokens of all that were woken."""

@final
class Deadline:
    """A deadline at which a socket is shut down."""

    def lift(self) -> bool:
        """Lift the deadline; whether it had passed."""

def watch(fd: int, seconds: float) -> Deadline:
    """Shut the socket with this descriptor down once some seconds have
    passed. The descriptor must stay open until the deadline is lifted."""

def split(payload: str) -> list[str]:
    """Cut a payload that is too large for a NOTIFY into parts."""

@final
class Assembly:
    """Puts parts together again."""

    def __new__(cls) -> Assembly: ...
    def push(self, part: str, limit: int) -> str | None:
        """Take the next part; returns the payload after its last one.

        Raises ValueError for what is no part or does not follow the one
        before, and for a payload of more than `limit` bytes.
        """

def check_address(address: str) -> None:
    """Raise ValueError for the text of an address that the bus server can't
    listen on."""

def check_certificate(
        certificate: str | PathLike[str],
        privatekey: str | PathLike[str]) -> None:
    """Raise ValueError for a certificate and a key, the paths of files in
    PEM, that the bus server can't use."""

def forked() -> None:
    """Begin anew in the child of a fork."""

def close() -> None:
    """End all waits, those to come as well: the interpreter exits."""
