"""The options of the configuration: one entry for each.

`settings` reads values by this table. `trytond-bus check` and the start of the
bus server refuse invalid values by it. The documentation prints it (`python
python/trytond_fastbus/options.py`).
"""
from typing import NamedTuple

BOTH = 'both'  # trytond with the class, and trytond-bus
TRYTOND = 'trytond'
SERVER = 'trytond-bus'

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KB = 1024
MB = 1024 * KB
GB = 1024 * MB
MANY = 10_000_000


class Option(NamedTuple):
    """A key of the configuration.

    kind is 'int', 'bool', 'choice', 'uri', 'url', 'origins', 'addresses' or
    'class'. Only an int has least and greatest, and it has a unit unless it is
    a count. Only a choice has choices.
    """

    name: str
    kind: str
    default: object
    least: int | None
    greatest: int | None
    unit: str
    side: str
    help: str
    section: str = 'bus'
    choices: tuple = ()

    @property
    def allowed(self):
        "The sentence that says which values are valid"
        if self.kind == 'int':
            return "must be a whole number from %d to %d%s" % (
                self.least, self.greatest, self.unit and ' ' + self.unit)
        return {
            'bool': "must be True or False",
            'choice': "must be %s" % ' or '.join(self.choices),
            'uri': "must be SCHEME://USER:PASSWORD@HOST:PORT/, all but the "
            "scheme optional, the port a number",
            'url': "must begin with http:// or https:// and a host",
            'addresses': "must be HOST:PORT, [IPv6]:PORT, *:PORT or "
            "unix:/PATH, several with commas",
            'class': "must be the name of a class that can be imported",
            'origins': "must be origins such as https://tryton.example.com, "
            "in lower case, without a path, one a line",
            }[self.kind]


def _flag(name, default, side, help):
    return Option(name, 'bool', default, None, None, '', side, help)


def _text(name, kind, default, side, help, **rest):
    return Option(name, kind, default, None, None, '', side, help, **rest)


def _choice(name, default, choices, side, help):
    return Option(
        name, 'choice', default, None, None, '', side, help, choices=choices)


def _count(name, default, least, greatest, side, help, **rest):
    return Option(
        name, 'int', default, least, greatest, '', side, help, **rest)


def _seconds(name, default, least, greatest, side, help, **rest):
    return Option(
        name, 'int', default, least, greatest, 'seconds', side, help, **rest)


def _bytes(name, default, least, greatest, side, help):
    return Option(name, 'int', default, least, greatest, 'bytes', side, help)


OPTIONS = [
    # The keys of trytond
    _text('class', 'class', None, TRYTOND,
        "class of the bus: trytond_fastbus.Bus"),
    _flag('allow_subscribe', False, BOTH,
        "whether clients may poll; if not, they get 501 and stop until their "
        "next login"),
    _text('url_host', 'url', None, TRYTOND,
        "address of the bus that clients are told, with its last slash"),
    _seconds('long_polling_timeout', 300, 1, DAY, BOTH,
        "time after which a poll is answered without a message"),
    _seconds('cache_timeout', 300, 1, DAY, BOTH,
        "time for which a message is retained"),
    _seconds('select_timeout', 5, 1, HOUR, BOTH,
        "time since the last query after which the connection to PostgreSQL "
        "is probed"),
    # The bus
    _bytes('cache_size', 64 * MB, KB, 64 * GB, BOTH,
        "limit of the retained messages of a database"),
    _bytes('message_size', MB, 64, 256 * MB, BOTH,
        "limit of a message as JSON, its channel included"),
    _seconds('keep_alive_timeout', 10, 1, HOUR, BOTH,
        "time in which PostgreSQL has to answer a probe"),
    _flag('journal', False, BOTH,
        "whether messages are also rows of a table"),
    _seconds('journal_timeout', HOUR, 1, 366 * DAY, BOTH,
        "time for which a row of the journal is kept"),
    _flag('relay_user', True, BOTH,
        "whether a notification to a user is answered on the channel of the "
        "client that polls"),
    _flag('check_access', None, BOTH,
        "whether a user may follow only the chats of records that the user "
        "may read; by default True for trytond, False for trytond-bus"),
    _seconds('session_cache', 30, 0, DAY, BOTH,
        "time for which a valid session, and the answer to an access check, "
        "are cached"),
    # The bus server
    _choice('session_check', 'batch', ('batch', 'trytond'), SERVER,
        "how sessions are checked: many by one query, or one by one by "
        "trytond's own function, which modules may override"),
    _text('listen', 'addresses', 'localhost:8001', SERVER,
        "addresses that clients connect to; sockets from systemd take their "
        "place"),
    _flag('reuse_port', False, SERVER,
        "whether other servers of the same user may listen on the same ports"),
    _text('admin_listen', 'addresses', '', SERVER,
        "addresses of the page, the metrics and the health checks; they have "
        "no authentication"),
    _seconds('keep_alive', 60, 0, 2 * HOUR, SERVER,
        "silence after which the system probes a client's TCP connection, so "
        "that no firewall or balancer drops it; 0 is never"),
    _count('num_proxies', None, 0, 100, SERVER,
        "number of reverse proxies that add to X-Forwarded-For; by default "
        "that of [web]"),
    _flag('ssl', None, SERVER,
        "whether to speak TLS; by default if [ssl] names a certificate"),
    _count('threads', 0, 0, 1024, SERVER,
        "threads that serve clients; 0 is one for each core"),
    _count('session_threads', 4, 1, 64, SERVER,
        "threads that ask trytond; up to 32 while databases do not answer"),
    _seconds('drain', 10, 0, HOUR, SERVER,
        "time over which the waiting polls are answered when the server "
        "stops"),
    _bytes('header_size', 16 * KB, 8 * KB, MB, SERVER,
        "limit of the head of a request; above it 431"),
    _seconds('header_timeout', 10, 1, HOUR, SERVER,
        "time in which the head of a request has to arrive"),
    _bytes('body_size', 64 * KB, KB, 64 * MB, SERVER,
        "limit of the body of a request; above it 413"),
    _seconds('body_timeout', 10, 1, HOUR, SERVER,
        "time in which the body of a request has to arrive"),
    _seconds('write_timeout', 30, 1, HOUR, SERVER,
        "time in which a client has to take each 16 KiB of an answer"),
    _seconds('idle_timeout', 75, 1, DAY, SERVER,
        "time for which a connection without a request stays open"),
    _count('max_channels', 256, 1, 100_000, SERVER,
        "channels of a poll; above it 400"),
    _bytes('channel_size', 256, 64, 64 * KB, SERVER,
        "limit of the name of a channel; above it 400"),
    _count('session_polls', 100, 1, MANY, SERVER,
        "waiting polls of a user of a database; above it 429"),
    _count('max_polls', 20_000, 1, MANY, SERVER,
        "waiting polls; a poll above it is answered at once if a message is "
        "there, else empty after hold_time"),
    _count('max_connections', 25_000, 1, MANY, SERVER,
        "open connections; above it no connection is accepted until one "
        "closes"),
    _seconds('hold_time', 20, 1, HOUR, SERVER,
        "time for which a poll is held that cannot be served now"),
    # Keys of other sections, which belong to trytond
    _text('uri', 'uri', 'sqlite://', BOTH,
        "address of the database server", section='database'),
    _count('maxconn', 64, 1, 100_000, BOTH,
        "connections that a process may have to a database",
        section='database'),
    _count('retry', 5, 0, 1000, BOTH,
        "times that a transaction is tried again", section='database'),
    _seconds('timeout', 30 * MINUTE, 1, 366 * DAY, BOTH,
        "time after the last poll after which the listener of a database "
        "stops",
        section='database'),
    _seconds('max_age', 30 * DAY, 1, 36600 * DAY, BOTH,
        "age at which a session expires", section='session'),
    _count('num_proxies', 0, 0, 100, BOTH,
        "number of reverse proxies that add to X-Forwarded-For",
        section='web'),
    _text('cors', 'origins', '', BOTH,
        "origins that web clients may poll from, besides the server's own",
        section='web'),
    ]

BY_NAME = {(option.section, option.name): option for option in OPTIONS}

# The keys of the section [bus]
KNOWN = [option.name for option in OPTIONS if option.section == 'bus']


def markdown():
    "Yield the lines of a table for the documentation"
    yield "| key | default | allowed | read by | |"
    yield "| --- | --- | --- | --- | --- |"
    for option in OPTIONS:
        default = '' if option.default is None else option.default
        yield "| `[%s] %s` | %s | %s | %s | %s |" % (
            option.section, option.name, default,
            option.allowed.removeprefix('must be '), option.side, option.help)


if __name__ == '__main__':
    print('\n'.join(markdown()))
