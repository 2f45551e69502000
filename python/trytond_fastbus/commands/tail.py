"""trytond-bus tail: the messages on the bus of a database, as they arrive."""
import datetime as dt
import json
import select
import sys
import time
from fnmatch import fnmatchcase

from trytond import backend

from .. import _native, journal, settings
from ..listener import RETRY_MAX, RETRY_MIN, part_channel
from ..server import bus_class
from ..source.driver import received, time_limit
from ..source.sqlite import LOOK_EVERY
from . import Failure
from .connection import connect, in_a_line

# The limit of characters of a message that are shown
WIDTH = 100


def run(options):
    "Show messages until the reader closes the output, or Ctrl-C"
    name = options.database
    bus = bus_class()
    table = journal.of(name, bus._channel)
    has_channel = backend.Database().has_channel()
    if not table and not has_channel:
        raise Failure(
            "on the database backend '%s', messages can be shown only with "
            "the journal: set [bus] journal = True" % backend.name)
    if options.since is not None and not table:
        raise Failure(
            "--since needs the journal: set [bus] journal = True, also for "
            "trytond")
    tail = Tail(bus, table, Printer(options.channels, options.is_json))
    follow = tail.listen if has_channel else tail.watch
    connection, lost, retry = connect(name), None, RETRY_MIN
    while True:
        try:
            connection = connection or connect(name)
            if lost is not None:
                _say(
                    "reconnected after %.1f seconds, messages of that time %s"
                    % (time.monotonic() - lost,
                        "follow" if tail.has_journal else "are lost"))
                lost, retry = None, RETRY_MIN
            follow(connection, options.since)
        except BrokenPipeError:
            raise
        except (
                Failure, OSError, backend.DatabaseOperationalError) as error:
            if lost is None:
                lost = time.monotonic()
                _say("the connection is lost: %s" % in_a_line(error))
            if connection:
                connection.close()
            connection = None
            time.sleep(retry)
            retry = min(retry * 2, RETRY_MAX)


def _say(text):
    print("trytond-bus tail: %s" % text, file=sys.stderr, flush=True)


class Tail:
    "The messages that any process publishes in a database"

    def __init__(self, bus, table, show):
        self._bus = bus
        self._table = table
        self._show = show
        self._number = None
        self._parts = _native.Assembly()

    @property
    def has_journal(self):
        return self._table is not None

    def listen(self, connection, since):
        "Show the notifications of PostgreSQL"
        part = part_channel(self._bus)
        cursor = connection.cursor()
        with time_limit(connection.fileno()):
            for channel in [self._bus._channel, part]:
                cursor.execute('LISTEN "%s"' % channel)
        # Started after LISTEN, so that no message is missed between the two.
        self._start(connection, since)
        poller = _poller()
        poller.register(connection.fileno(), select.POLLIN)
        while True:
            taken = []
            try:
                # psycopg loses notifications that arrive with the answer to a
                # query while they are taken.
                for notification in received(connection):
                    taken.append(notification)
            finally:
                for channel, payload in taken:
                    self._take(connection, payload, channel == part)
            if not _wait(poller, settings.select_timeout()):
                with time_limit(connection.fileno()):
                    cursor.execute('SELECT 1')

    def watch(self, connection, since):
        "Show the rows that are written into the journal, on SQLite"
        self._start(connection, since)
        file, version = self._table.file(connection), None
        poller = _poller()
        while True:
            current = self._table.version(connection)
            if current != version:
                self._read(connection)
                version = current
            _wait(poller, LOOK_EVERY)
            if self._table.file(connection) != file:
                raise OSError("the file of the database was replaced")

    def _start(self, connection, since):
        if not self._table:
            return
        try:
            is_there = self._table.look(connection)
        except journal.Unusable as error:
            if since is not None:
                raise Failure(str(error)) from error
            _say(error)
            self._table = None
            return
        newest = self._table.newest(connection) if is_there else 0
        if self._number is None:
            self._number = newest if since is None else 0
            self._read(connection, since)
        else:
            # The database may have been restored.
            self._number = min(self._number, newest)
            self._read(connection)

    def _read(self, connection, since=None, until=journal.NUMBER_MAX):
        while rows := self._table.read(
                connection, self._number, until=until):
            if rows[-1][0] == self._number:
                break
            for number, _, age, payload in rows:
                self._number = number
                if payload and (since is None or age <= since):
                    self._show(time.time() - age, payload)

    def _take(self, connection, payload, is_part):
        if is_part and payload.isdecimal():
            # The message is too large for a NOTIFY, so it is read from the
            # journal.
            if self._table:
                self._read(connection, until=int(payload))
            return
        if is_part:
            try:
                payload = self._parts.push(payload, sys.maxsize)
            except ValueError:
                return
            if payload is None:
                return
        number = None
        if self._table:
            number = _get(_decoded(payload), 'seq')
        if isinstance(number, int):
            if number <= self._number:
                return
            self._number = number
        self._show(time.time(), payload)


class Printer:
    "Prints the payloads whose channel matches one of the patterns"

    def __init__(self, patterns, is_json):
        self._patterns = patterns
        self._is_json = is_json

    def __call__(self, seconds, payload):
        content = _decoded(payload)
        channel, message = _get(content, 'channel'), _get(content, 'message')
        if not isinstance(channel, str) or not any(
                fnmatchcase(channel, pattern) for pattern in self._patterns):
            return
        moment = dt.datetime.fromtimestamp(seconds).astimezone()
        if self._is_json:
            line = json.dumps({
                    'time': moment.isoformat(timespec='milliseconds'),
                    'channel': channel,
                    'message': message,
                    }, ensure_ascii=False)
        else:
            line = _printable('%s  %s  %s  %s' % (
                    moment.strftime('%Y-%m-%d %H:%M:%S.%f')[:-3], channel,
                    _get(message, 'type') or '-', _words(message)))
        print(line, flush=True)


def _words(message):
    "The first words of a message"
    texts = [_get(message, 'title'), _get(message, 'body')]
    words = ': '.join(
        ' '.join(text.split()) for text in texts if isinstance(text, str))
    if not words:
        if isinstance(message, dict):
            message = {
                key: value for key, value in message.items()
                if key not in {'type', 'message_id'}}
        words = json.dumps(message, ensure_ascii=False)
    return words if len(words) <= WIDTH else words[:WIDTH - 1] + '…'


def _printable(text):
    # Otherwise a message could control the terminal.
    return ''.join(c if c.isprintable() else '?' for c in text)


def _decoded(payload):
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _get(value, key):
    return value.get(key) if isinstance(value, dict) else None


def _poller():
    "A poll object that reports that the reader has closed the output"
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return poller


def _wait(poller, seconds):
    "Wait until something can be read, and return whether it can"
    events = poller.poll(seconds * 1000)
    if any(fd == sys.stdout.fileno() for fd, _ in events):
        raise BrokenPipeError
    return bool(events)
