"""The configuration, read from trytond's at each call by the table of
`options`."""
import configparser
import functools
import logging
import os
import re
import sys
import urllib.parse
from importlib.machinery import PathFinder

import trytond.config

from . import _native, sources
from .options import BY_NAME, OPTIONS, TRYTOND

# A module from 7.8 on, an object of it before.
MODULE = hasattr(trytond.config, 'getint')
config = trytond.config if MODULE else trytond.config.config

logger = logging.getLogger('trytond.bus')

BOOLEANS = configparser.RawConfigParser.BOOLEAN_STATES
ORIGIN = re.compile(r'[a-z][a-z0-9+.-]*://[^/\s,A-Z]+|\*|null')


class Invalid(ValueError):
    """One or several invalid values of the configuration, with a line for
    each."""

    def __init__(self, problems, nearest=None):
        super().__init__('\n'.join(problems))
        self.problems = problems
        # The nearest allowed number, for a number out of its bounds
        self.nearest = nearest


def read(name, section='bus', default=None):
    """Return the value of an option.

    Raises Invalid if the value is not allowed.
    """
    text = _of_trytond_bus(section, name) or config.get(section, name)
    if text is None:
        return BY_NAME[section, name].default if default is None else default
    return _value(section, name, text)


def used(name, section='bus', default=None):
    """Return the value of an option as trytond's process uses it.

    A number out of its bounds is logged once, and the nearest allowed number
    is used, because trytond starts nevertheless. Raises Invalid for a text
    that has no value.
    """
    try:
        return read(name, section, default)
    except Invalid as error:
        if error.nearest is None:
            raise
        _log("%s; %d is used" % (error, error.nearest))
        return error.nearest


@functools.cache
def _log(text):
    logger.error(text)


def _of_trytond_bus(section, name):
    """The text of the value that trytond.bus read when it was imported (before
    7.8)"""
    if MODULE or BY_NAME[section, name].kind != 'int':
        return None
    # trytond's tests set the value there.
    name = ('_db_' if section == 'database' else '_') + name
    value = getattr(sys.modules.get('trytond.bus'), name, None)
    return None if value is None else str(value)


@functools.lru_cache(1000)
def _value(section, name, text):
    option = BY_NAME[section, name]
    try:
        value = PARSERS[option.kind](option, text.strip())
    except ValueError as error:
        raise Invalid([problem(name, section, text, error)]) from error
    if option.kind == 'int' and not option.least <= value <= option.greatest:
        raise Invalid(
            [problem(name, section, text, option.allowed)],
            min(max(value, option.least), option.greatest))
    return value


def problem(name, section, text, reason):
    "The line about a value that is not allowed"
    shown = ' '.join(text.split())
    if BY_NAME[section, name].kind == 'uri':
        # The URI may contain a password.
        shown = '%s:…' % shown.partition(':')[0]
    return "%s: [%s] %s = %s: it %s" % (
        sources.origin(section, name, text), section, name, shown, reason)


# Each function returns the value of a text, or raises ValueError with the
# allowed values.

def _int(option, text):
    # Python's own limit of digits is far above any bound.
    if not re.fullmatch(r'[+-]?[0-9]{1,30}', text):
        raise ValueError(option.allowed)
    return int(text)


def _bool(option, text):
    try:
        return BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(option.allowed) from None


def _choice(option, text):
    if text not in option.choices:
        raise ValueError(option.allowed)
    return text


def _uri(option, text):
    try:
        uri = urllib.parse.urlsplit(text)
        is_uri = uri.scheme and uri.port != 0
    except ValueError:
        is_uri = False
    if not is_uri:
        raise ValueError(option.allowed)
    return text


def _url(option, text):
    if text and not is_url(text):
        raise ValueError(option.allowed)
    return text or None


def _addresses(option, text):
    for address in addresses(text):
        try:
            _native.check_address(address)
        except ValueError as error:
            raise ValueError("%s (%s)" % (option.allowed, error)) from error
    if not addresses(text) and option.default:
        raise ValueError(option.allowed)
    return addresses(text)


def _origins(option, text):
    for origin in text.split():
        if not ORIGIN.fullmatch(origin):
            raise ValueError(option.allowed)
    return text.split()


PARSERS = {
    'int': _int,
    'bool': _bool,
    'choice': _choice,
    'uri': _uri,
    'url': _url,
    'addresses': _addresses,
    'origins': _origins,
    # The class is imported at its use.
    'class': lambda option, text: text or None,
    }


def addresses(text):
    """The addresses in a text, separated by commas.

    >>> addresses('localhost:8001, unix:/run/bus')
    ['localhost:8001', 'unix:/run/bus']
    """
    return list(filter(None, map(str.strip, text.split(','))))


def is_url(text):
    """Whether a text is the URL of a web server.

    >>> is_url('https://tryton.example.com/'), is_url('tryton.example.com')
    (True, False)
    """
    try:
        url = urllib.parse.urlsplit(text)
        return (
            url.scheme in {'http', 'https'} and bool(url.hostname)
            and url.port != 0 and not re.search(r'\s', text))
    except ValueError:
        return False


# The values that trytond's process uses; times are in seconds, sizes in bytes
database_timeout = functools.partial(used, 'timeout', 'database')
long_polling_timeout = functools.partial(used, 'long_polling_timeout')
cache_timeout = functools.partial(used, 'cache_timeout')
select_timeout = functools.partial(used, 'select_timeout')
message_size = functools.partial(used, 'message_size')
cache_size = functools.partial(used, 'cache_size')
journal = functools.partial(used, 'journal')
journal_timeout = functools.partial(used, 'journal_timeout')
keep_alive_timeout = functools.partial(used, 'keep_alive_timeout')
relay_user = functools.partial(used, 'relay_user')
session_cache = functools.partial(used, 'session_cache')
session_check = functools.partial(used, 'session_check')


def payload_max():
    """The most bytes of a payload that is received. Another process may allow
    larger messages than this one."""
    return max(cache_size(), message_size())


def check_access(default):
    """Whether a user gets only the chats of records that the user may read;
    always False in a series without chats"""
    return used('check_access', default=default) and has_chat()


@functools.cache
def has_chat():
    "Whether records have chats in this series"
    # Not imported, because trytond.ir may import trytond.bus.
    directories = [os.path.join(path, 'ir') for path in trytond.__path__]
    return PathFinder.find_spec('trytond.ir.chat', directories) is not None


def server():
    """The options of the bus server, by name; times in seconds, sizes in
    bytes.

    Raises Invalid for all values that are not allowed, including those that
    only trytond reads.
    """
    options, problems = {}, []
    for option in OPTIONS:
        try:
            value = read(option.name, option.section)
        except Invalid as error:
            problems += error.problems
        else:
            if option.side != TRYTOND and option.section == 'bus':
                options[option.name] = value
    try:
        options['ssl'] = ssl()
    except Invalid as error:
        problems += error.problems
    if problems:
        # The problems of [ssl] include those of [bus] ssl.
        raise Invalid(list(dict.fromkeys(problems)))
    for name in ['listen', 'admin_listen']:
        if isinstance(options[name], str):
            options[name] = addresses(options[name])
    if options['num_proxies'] is None:
        # The default is that of trytond, which is behind the same proxies.
        options['num_proxies'] = read('num_proxies', 'web')
    options['cors'] = read('cors', 'web') or []
    options['check_access'] = check_access(False)
    if not options['journal']:
        options['journal_timeout'] = None
    return options


def ssl():
    """The paths of the certificate and of its private key with which the bus
    server speaks TLS, or None.

    Raises Invalid if TLS is on, but there is no path of a certificate.
    """
    certificate, privatekey = map(_path_of_ssl, ['certificate', 'privatekey'])
    is_on = read('ssl')
    if is_on is None:
        is_on = bool(certificate or privatekey)
    if not is_on:
        return None
    if not certificate:
        # One of them has switched TLS on.
        place = ('ssl', 'privatekey') if privatekey else ('bus', 'ssl')
        raise Invalid([
                "%s: [%s] %s = %s, but [ssl] certificate names no file: set "
                "it for TLS, or set [bus] ssl = False" % (
                    sources.origin(*place, config.get(*place)), *place,
                    config.get(*place))])
    # As for trytond, the key may be in the same file.
    return certificate, privatekey or certificate


def _path_of_ssl(option):
    text = config.get('ssl', option)
    # In trytond a boolean says that a proxy speaks TLS.
    return None if not text or text.lower() in BOOLEANS else text


def descriptors(options, databases=0):
    """How many files a bus server with these options may open. Each of the
    databases has a connection that listens and one that checks sessions"""
    return options['max_connections'] + 100 + 2 * databases
