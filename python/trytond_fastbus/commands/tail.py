"""trytond-bus tail: the messages on the bus of a database, as they arrive."""
import datetime as dt
import json
import logging
import os
import select
import sys
import time
from fnmatch import fnmatchcase

from trytond import backend

from .. import journal, queues
from ..server import bus_class
from . import Failure
from .connection import connect

# The name that administrators know from trytond
logger = logging.getLogger('trytond.bus')

# The limit of characters of a message that are shown
WIDTH = 100

# Seconds between two checks whether the listener has ended
CHECK_EVERY = 1


def run(options):
    "Show messages until the reader closes the output, or Ctrl-C"
    name, bus = options.database, bus_class()
    _check(name, bus, options.since)
    printer = Printer(options.channels, options.is_json)
    sink = Sink(name, printer, options.since)
    with bus._queues_lock[os.getpid()]:
        listener = queues.Queue(bus, name, sink)['listener']
    # It reports that the reader has closed the output.
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    while listener.is_alive():
        if poller.poll(CHECK_EVERY * 1000):
            raise BrokenPipeError
    raise Failure("the database '%s' does not exist any more" % name)


def _check(name, bus, since):
    "Raise Failure if the messages can't be shown"
    table = journal.of(name, bus._channel)
    if not table and not backend.Database().has_channel():
        raise Failure(
            "on the database backend '%s', messages can be shown only with "
            "the journal: set [bus] journal = True" % backend.name)
    if since is not None and not table:
        raise Failure(
            "--since needs the journal: set [bus] journal = True, also for "
            "trytond")
    connection = connect(name)
    try:
        if since is not None:
            table.look(connection)
    except journal.Unusable as error:
        raise Failure(str(error)) from error
    finally:
        connection.close()


class Sink:
    """The bus of a database, whose listener calls this object.

    Messages are shown as soon as they are on the bus. Rows of the journal that
    are older than the listener are shown if they are at most since seconds
    old.
    """

    def __init__(self, name, show, since):
        self._native = queues.native(name)
        self._show = show
        self._since = since
        self._has_started = False
        self._place = 0

    def __getattr__(self, name):
        return getattr(self._native, name)

    def is_idle(self, seconds):
        "Whether the listener may end"
        return False

    def connected(self):
        self._has_started = True
        self._native.connected()

    def receive(self, *args):
        try:
            return self._native.receive(*args)
        finally:
            self._show_new()

    def replay(self, rows):
        try:
            return self._native.replay(rows)
        finally:
            self._show_new()

    def _show_new(self):
        self._place, messages = self._native.messages(self._place)
        for age, channel, message in messages:
            if self._has_started or (
                    self._since is not None and age <= self._since):
                self._show(time.time() - age, channel, message)


class Printer:
    "Prints the messages whose channel matches one of the patterns"

    def __init__(self, patterns, is_json):
        self._patterns = patterns
        self._is_json = is_json

    def __call__(self, seconds, channel, message):
        if not any(
                fnmatchcase(channel, pattern) for pattern in self._patterns):
            return
        message = json.loads(message)
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
                    message.get('type') or '-', _words(message)))
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # The main thread notices it as well, and ends.
            logger.debug("the reader has closed the output")


def _words(message):
    "The first words of a message"
    texts = [message.get('title'), message.get('body')]
    words = ': '.join(
        ' '.join(text.split()) for text in texts if isinstance(text, str))
    if not words:
        message = {
            key: value for key, value in message.items()
            if key not in {'type', 'message_id'}}
        words = json.dumps(message, ensure_ascii=False)
    return words if len(words) <= WIDTH else words[:WIDTH - 1] + '…'


def _printable(text):
    # Otherwise a message could control the terminal.
    return ''.join(c if c.isprintable() else '?' for c in text)
