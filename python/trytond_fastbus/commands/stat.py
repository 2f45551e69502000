"""trytond-bus stat: the state of a running bus server, in the terminal."""
import http.client
import math
import re
import shutil
import socket
import sys
import time
from collections import defaultdict
from contextlib import closing

from .. import settings
from . import Failure

TIMEOUT = 10  # seconds without an answer
SIZE = 64 * 1024 * 1024  # bytes of an answer that are read
HEAD = 8  # lines of the table that are no databases, and one below it
# The counters by which databases are ordered, the worst first
TROUBLES = ['gaps_total', 'skipped_total', 'evicted_total']

HOST = re.compile(r'([^\s:]+|\[[^\s\]]+\]):(\d{1,5})', re.ASCII)
SAMPLE = re.compile(r'(\w+)(?:\{(.*)\})? (\S+)', re.DOTALL)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.DOTALL)
ESCAPED = re.compile(r'\\(.)', re.DOTALL)


def run(options):
    """Show the state every interval seconds until Ctrl-C, or once if the
    output is not a terminal, and return the exit status."""
    is_terminal = sys.stdout.isatty()
    try:
        address = _address(options.admin_listen)
        look = Look(ask(address))
        if is_terminal:
            _watch(address, look, options.interval, options.filter)
        time.sleep(options.interval)
        print('\n'.join(
                table(address, look, Look(ask(address)), options.filter)))
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of watching.
        return 0 if is_terminal else 130
    except (OSError, ValueError) as error:
        raise Failure(error) from error
    return 0


def _address(text):
    if text is None:
        addresses = settings.read('admin_listen') or []
    else:
        addresses = settings.addresses(text)
    if not addresses:
        raise ValueError(
            "no address of a server: set [bus] admin_listen in the "
            "configuration, or give --admin-listen ADDRESS")
    return addresses[0]


def _watch(address, before, interval, text):
    "Draw over the previous table, as top does, for ever"
    print('\x1b[2J', end='')
    while True:
        time.sleep(interval)
        try:
            look = Look(ask(address))
        except (OSError, ValueError) as error:
            before, lines = None, ["%s, trying again" % error]
        else:
            # Counts from a time without answers are not shown.
            room = shutil.get_terminal_size().lines - HEAD
            lines = table(
                address, before or look, look, text, max(room, 1))
            before = look
        _draw(lines)


def _draw(lines):
    columns, rows = shutil.get_terminal_size()
    text = '\x1b[H'
    for line in lines[:rows - 1]:
        # Only the heads are in capitals.
        drawn = '\x1b[7m%s\x1b[m' if line.isupper() else '%s'
        text += '\x1b[K%s\n' % (drawn % line.ljust(columns)[:columns])
    print(text, end='\x1b[J', flush=True)


class _Connection(http.client.HTTPConnection):
    "A connection to the socket of this path"

    def __init__(self, path):
        super().__init__('localhost', timeout=TIMEOUT)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(address):
    """Return the metrics of the server at the address, as text. Raise
    ValueError if the server is not a bus server, and OSError if there is no
    server."""
    try:
        with closing(_connect(address)) as connection:
            connection.request('GET', '/metrics')
            response = connection.getresponse()
            text = response.read(SIZE).decode(errors='replace')
    except (OSError, UnicodeError) as error:
        raise OSError(
            "no bus server answers at %s: %s"
            % (address, getattr(error, 'strerror', None) or error)) from error
    except http.client.HTTPException as error:
        raise _other(address) from error
    if response.status != 200 or '\ntrytond_bus_polls_waiting ' not in text:
        raise _other(address)
    return text


def _other(address):
    return ValueError(
        "the answer of %s is not that of a bus server: give the address of "
        "[bus] admin_listen" % address)


def _connect(address):
    if address.startswith('unix:'):
        return _Connection(address[len('unix:'):])
    found = HOST.fullmatch(address)
    if not found:
        raise ValueError(
            "'%s' is no address: it must be HOST:PORT or unix:/PATH"
            % address)
    host, port = found.groups()
    return http.client.HTTPConnection(
        'localhost' if host == '*' else host.strip('[]'), int(port),
        timeout=TIMEOUT)


def parse(text):
    "Yield the short name, the labels and the value of each sample"
    # Not splitlines(), because the name of a database may contain other line
    # boundaries.
    for line in text.split('\n'):
        found = SAMPLE.fullmatch(line)
        if line.startswith('#') or not found:
            continue
        name, labels, value = found.groups()
        labels = {
            label: ESCAPED.sub(
                lambda found: found[1].replace('n', '\n'), escaped)
            for label, escaped in LABEL.findall(labels or '')}
        yield name.removeprefix('trytond_bus_'), labels, float(value)


class Look:
    "The metrics of a server at one time"

    def __init__(self, text):
        self.time = time.monotonic()
        self._samples = list(parse(text))

        self._of_databases = defaultdict(dict)
        for name, labels, value in self._samples:
            if 'database' in labels:
                self._of_databases[name][labels['database']] = value

    def of(self, name, database=None):
        """Return the sum of the samples, or that of a database; None if there
        is none"""
        if database is not None:
            return self._of_databases[name].get(database)
        values = [value for found, _, value in self._samples if found == name]
        return sum(values) if values else None

    @property
    def databases(self):
        """The databases, the worst first: those without a connection, then
        those that have lost the most messages"""
        def badness(name):
            troubles = sum(self.of(kind, name) or 0 for kind in TROUBLES)
            return bool(self.of('listening', name)), -troubles, name
        return sorted(self._of_databases['listening'], key=badness)

    @property
    def buckets(self):
        "By seconds: how many deliveries took at most that long"
        return {
            float(labels['le']): value for name, labels, value
            in self._samples if name == 'delivery_seconds_bucket'}


def quantile(buckets, part):
    """Return the quantile of the delivery times, in seconds. Deliveries are
    assumed to be even within a bucket, and to take the last bound if they are
    above it."""
    bounds = sorted(buckets.items())
    total = bounds[-1][1] if bounds else 0
    if not total:
        return None
    least = below = 0
    for bound, count in bounds:
        if count >= part * total and count > below:
            if math.isinf(bound):
                break
            share = (part * total - below) / (count - below)
            return least + (bound - least) * share
        least, below = bound, count
    return least


def table(address, before, now, text='', most=None):
    """Return the lines of the table: the state now, and the counts since
    before. Only databases whose name contains the text are shown, and no more
    than most"""
    seconds = now.time - before.time
    buckets, earlier = now.buckets, before.buckets
    if all(earlier.get(bound, 0) <= buckets[bound] for bound in buckets):
        buckets = {
            bound: count - earlier.get(bound, 0)
            for bound, count in buckets.items()}

    def rate(name):
        counted, earlier = now.of(name) or 0, before.of(name) or 0
        # A counter that is less than before was reset.
        counted -= earlier if earlier <= counted else 0
        return '%.1f' % (counted / seconds if seconds else 0)

    def number(name, database):
        value = now.of(name, database=database)
        return '-' if value is None else '%d' % value

    state = 'draining' if now.of('draining') else 'serving'
    server = (
        '%d' % now.of('polls_waiting'), '%d' % (now.of('connections') or 0),
        rate('published_total'), rate('delivered_total'),
        _duration(quantile(buckets, .5)), _duration(quantile(buckets, .99)))
    names = now.databases
    shown = [
        name for name in names if text.lower() in name.lower()][:most]
    databases = [(
            # A name must not control the terminal.
            ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}'
                for c in name),
            'yes' if now.of('listening', database=name) else 'no',
            *(number(value, name) for value in [
                    'history_messages', 'gaps_total', 'skipped_total',
                    'evicted_total', 'journal_number']))
        for name in shown]
    return [
        "trytond-bus at %s, %s" % (address, state),
        _totals(now, len(shown), len(names)), '',
        *_aligned(
            "POLLS CONNECTIONS MESSAGES/S DELIVERIES/S P50 P99".split(),
            server), '',
        *_aligned(
            "DATABASE LISTENING RETAINED GAPS SKIPPED EVICTED JOURNAL".split(),
            *databases)]


def _totals(now, shown, number):
    "The line of all databases, including those that are not shown"
    listening = now.of('listening') or 0
    return "%d of %d databases, worst first; in all: %s" % (
        shown, number, ', '.join([
                "%d not listening" % (number - listening),
                *("%d %s" % (now.of(name) or 0, label) for name, label in [
                        ('history_messages', 'retained'),
                        ('gaps_total', 'gaps'), ('skipped_total', 'skipped'),
                        ('evicted_total', 'evicted')])]))


def _aligned(*rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        yield '  '.join([
                first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])


def _duration(seconds):
    if seconds is None:
        return '-'
    if seconds >= 1:
        return '%.2f s' % seconds
    return '%.*f ms' % (2 if seconds < .001 else 1, seconds * 1000)
