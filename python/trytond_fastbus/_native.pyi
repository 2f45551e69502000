"""The engine of trytond-fastbus."""
import threading
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any, ClassVar, final

__all__ = [
    'AccessRequest', 'Alarm', 'Assembly', 'Bell', 'Bus', 'BusServer',
    'CHANNELS_MAX', 'DatabaseBus', 'DatabasesRequest', 'Deadline',
    'ListenerRequest', 'NUMBER_MAX', 'PAYLOAD_MAX', 'SessionsRequest',
    'TokenQueue', '_MessageQueue', 'check_address', 'check_certificate',
    'close', 'forked', 'metrics', 'notify', 'split', 'statistics', 'watch']

# The most channels of a poll
CHANNELS_MAX: int
# The greatest number of a row of the journal
NUMBER_MAX: int
# The most bytes that PostgreSQL accepts as the payload of a NOTIFY
PAYLOAD_MAX: int

class Bus:
    """The message bus, in place of trytond's `LongPollingBus`.

    All methods are class methods and call each other through the class, so
    that a subclass may override them.
    """

    _channel: ClassVar[str]
    _queues: ClassVar[dict[tuple[int, str], dict[str, Any]]]
    _queues_lock: ClassVar[_Locks]
    _messages: ClassVar[_Messages]

    def __new__(cls) -> Bus: ...
    @classmethod
    def publish(cls, channel: str, message: dict[Any, Any]) -> None:
        """Send a message to a channel when the transaction commits.

        It must be called in a transaction of trytond. The message is encoded
        at once, as trytond's JSON-RPC does; its key `message_id` is set to a
        new uuid4, as text.

        Raises TypeError for a channel that is not a string, a message that is
        not a dictionary, and a value that can't be encoded; ValueError for a
        message that contains itself or is larger than `[bus] message_size`
        bytes; RuntimeError outside of a transaction. Nothing is sent then.
        """
    @classmethod
    def subscribe(
            cls, database: str, channels: Iterable[str],
            last_message: Any = None) -> dict[str, Any]:
        """Wait for the next message in any of the channels.

        `last_message` is the id of the last message that the client has
        received. The next message after it is returned. Without
        `last_message`, or if it is unknown, the oldest retained message is
        returned.

        Returns the result of `create_response` for the message, or for None
        after `[bus] long_polling_timeout` seconds. If the channels have
        exactly one `user:<id>`, other users' `notification:<id>` are ignored,
        and, unless `[bus] check_access` is off, also the `chat:<model>,<id>`
        of records that this user may not read. A notification to the user is
        returned on the client's channel if the channels have exactly one
        `client:<id>`.

        Raises TypeError for channels that are not strings.
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
        """As `subscribe`, but returns JSON. The JSON of the message is as
        published."""
    @classmethod
    def _listen(cls, database: str) -> None:
        """Listen to a database for as long as it is subscribed to."""

def notify(
        title: Any, body: Any = None, priority: int = 1, user: Any = None,
        client: Any = None) -> Any:
    """Send a text message to a user's client, to be shown as a popup.

    It goes to the first of these that is set: the client with the id `client`,
    all clients of the user with the id `user`, the client in the transaction's
    context, all clients of the current user. The current user is the
    transaction's. If that is root, it is the user for which root acts
    (`set_user(0, set_context=True)`). Root itself never logs in, so nothing is
    sent if there is no other user.

    `title` is one line. `body` is a short text without markup. `priority` goes
    from 0 (low) to 3 (urgent). Raises ValueError for another priority.
    """

def metrics() -> str:
    """The metrics of this process, in the format of Prometheus, with the names
    of the bus server's metrics."""

def statistics() -> dict[str, dict[str, int]]:
    """The state and the counters of the buses of this process, by database.

    The state:

    - `retained`: the retained messages
    - `bytes`: about how many bytes they take
    - `waiting`: the waiting subscribers
    - `listening`: whether the connection is open
    - `number`: the greatest journal number that was read

    The counters since the first subscription:

    - `published`: messages
    - `evicted`: messages evicted for lack of memory, so that no poll can
      resume after them
    - `skipped`: payloads that are not valid messages
    - `gaps`: connections lost without a journal, when messages may have been
      lost
    - `rewinds`: times that journal numbers went back, so that the whole
      journal was read anew
    """

@final
class _MessageQueue:
    """The retained messages of a database, under trytond's name.

    A message is retained for `timeout` seconds, by `time.time`.
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
    """Wakes the listening thread."""

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
            payload_max: int, journal_timeout: float | None) -> DatabaseBus:
        """`journal_timeout` is None if the journal is off."""
    def receive(
            self, notifications: list[tuple[bool, str]], table: int | None
            ) -> tuple[int, tuple[int, int] | None, list[str]]:
        """Put the payloads of a batch on the bus, in their order. Each is a
        pair of whether it is a part, and its text. With a journal this ends
        before the first payload that announces a row, because rows have to be
        read then. If that is the next row of the table with the object
        identifier `table`, its message is put on the bus as well.

        Returns how many payloads were processed, the rows to be read, and the
        reasons of the payloads that were skipped. The rows are None, or the
        number of payloads that follow and announce rows, and the greatest
        number of these rows."""
    def replay(
            self,
            rows: list[tuple[int, float, float, str | None]]) -> list[str]:
        """Put rows of the journal on the bus, in their order, except those
        that were read before. Each row is its number, the time of its commit
        and its age, both in seconds, and its payload: None for a row that was
        read before, empty for a row that is too large. Returns the reasons of
        the rows that were skipped because they are not valid messages."""
    def messages(self, place: int) -> tuple[int, list[tuple[float, str, str]]]:
        """The retained messages in any channel, from this place on. Returns
        the place after the last one, and for each message its age in seconds,
        its channel, and its JSON."""
    @property
    def has_journal(self) -> bool:
        """Whether there is a journal that can be read."""
    def use_journal(self, usable: bool) -> None:
        """Set whether there is a journal that can be read. It has no effect if
        the journal is off."""
    @property
    def position(self) -> int:
        """The number of the last row that was read; 0 before the first row,
        and while all rows are read anew."""
    def is_mark(self, number: int, created: float) -> bool:
        """Whether these are the number and the time of commit, in seconds, of
        the last row that was read."""
    def rewind(self) -> None:
        """Start to read all rows of the journal anew, because the last row
        that was read is not in the table. Known messages are not published
        again."""
    def end_read(self, until: int) -> tuple[int, int] | None:
        """Note that the rows up to the number `until` were read. Returns the
        greatest numbers before and now if these are all rows, and numbers went
        back."""
    def set_bell(self, bell: Bell) -> None:
        """Set the bell that asks the listener for a look."""
    def ring(self) -> None:
        """Ask the listener for a look."""
    def begin_look(self) -> None:
        """Begin a look."""
    def end_look(self) -> None:
        """End the look, whose messages are on the bus."""
    def requests(
            self, limit: int) -> list[tuple[int, list[str], int, int]]:
        """The first `limit` rows that polls wait for, because their last
        message was evicted. Each is a key, the channels, and two numbers. The
        number of the row is above the first one and at most the second one."""
    def answer(
            self, key: int, row: tuple[int, float, str] | None) -> str | None:
        """Answer the request with this key by the row that was found, or by
        none. Returns the reason if the row was skipped because it is not a
        valid message."""
    @property
    def evicted(self) -> int:
        """How many messages were evicted for lack of memory, so that no poll
        can resume after them."""
    def connected(self) -> None:
        """Note that the connection is open."""
    def disconnected(self) -> None:
        """Note that the connection was lost; drop an incomplete payload.
        """
    def expire(self) -> None:
        """Drop the messages that have expired."""
    def listen(self) -> None:
        """Note that the database has a listener, and counts as polled now."""
    def abandon(self) -> None:
        """Note that the database has no listener any more. The next poll
        starts another one."""
    @property
    def is_look_awaited(self) -> bool:
        """Whether a poll waits for a look."""
    def set_queue_usage(self, usage: float) -> None:
        """Note the part of PostgreSQL's queue of notifications that is in
        use, from 0 to 1."""
    def is_idle(self, seconds: float) -> bool:
        """Whether there is no waiter, and no poll arrived in the last
        `seconds` seconds."""
    def forget(self) -> None:
        """Remove the bus and end its waits, because the database does not
        exist any more."""
    def remove(self, seconds: float) -> bool:
        """Remove the bus if it is idle for `seconds` seconds; returns whether
        it was."""

@final
class BusServer:
    """The bus server, which runs on threads of its own.

    `options` has the keys that `trytond_fastbus.settings.server` returns.

    Raises ValueError for an invalid address and for a certificate or key that
    can't be used, and OSError for an address that can't be listened on.
    """

    def __new__(cls, options: dict[str, Any]) -> BusServer: ...
    @property
    def addresses(self) -> list[str]:
        """The addresses that it listens on, such as `127.0.0.1:8001`.
        """
    @property
    def descriptors(self) -> int:
        """How many descriptors this process may have open."""
    def next_request(
            self, timeout: float) -> (
                DatabasesRequest | SessionsRequest | AccessRequest
                | ListenerRequest | None):
        """The next question, or None after `timeout` seconds."""
    def ready(self) -> None:
        """Tell the service manager that the server is ready."""
    def reload(self) -> bool:
        """Read the certificate and its key again, for later connections;
        returns whether there are any. Raises ValueError if they can't be used.
        The old ones stay in use then."""
    def drain(self) -> None:
        """Begin to drain: answer the waiting polls, and then end."""
    def wait(self, timeout: float) -> bool:
        """Wait for the end of the server for at most `timeout` seconds;
        returns whether it has ended. Raises OSError if it has failed.
        """

@final
class DatabasesRequest:
    "Which of these databases exist?"

    @property
    def names(self) -> list[str]: ...
    def answer(self, exist: list[bool] | None) -> None:
        """Answer with a bool per database, or with None if the databases can't
        be listed now. Only the first answer counts."""

@final
class SessionsRequest:
    "Which of these sessions of a database are valid?"

    @property
    def database(self) -> str: ...
    @property
    def sessions(self) -> list[tuple[int, str, str | None, bool]]:
        """Each session as the user's id, the token, the address of the client
        if it is known, and whether the connection comes from this host and not
        through a proxy of `num_proxies`. A proxy may add a text that is not an
        address."""
    def answer(self, checks: list[str]) -> None:
        """Answer with one result per session: 'valid', 'invalid', 'unknown' if
        the database is unknown, or 'failed' if the session can't be checked
        now. Raises ValueError for another text. Only the first answer counts.
        """

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
        """Answer with the chats that the user may follow, or with None if
        trytond can't decide now. Only the first answer counts."""

@final
class ListenerRequest:
    "A database that needs a listener."

    @property
    def database(self) -> str: ...

@final
class TokenQueue:
    """The tokens of the woken greenlets that their hub has not resumed yet."""

    def __new__(cls, send: Callable[[], object]) -> TokenQueue: ...
    def take(self) -> list[int]:
        """Take the tokens of all woken greenlets."""

@final
class Deadline:
    """A deadline at which a socket is shut down."""

    def lift(self) -> bool:
        """Lift the deadline; returns whether it had passed."""

def watch(fd: int, seconds: float) -> Deadline:
    """Shut the socket with this descriptor down after `seconds` seconds. The
    descriptor must stay open until the deadline is lifted."""

def split(payload: str) -> list[str]:
    """Cut a payload that is too large for a NOTIFY into parts."""

@final
class Assembly:
    """Assembles parts."""

    def __new__(cls) -> Assembly: ...
    def push(self, part: str, limit: int) -> str | None:
        """Take the next part; returns the payload after its last part.

        Raises ValueError for a text that is not a part or does not follow the
        part before, and for a payload of more than `limit` bytes.
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
    """End all waits, and make later waits end at once, because the interpreter
    exits."""
