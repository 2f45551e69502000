"""The configuration, read from trytond's at each call."""
import functools
import os
import sys
from importlib.machinery import PathFinder

import trytond.config

# A module from 7.8 on, an object of it before.
MODULE = hasattr(trytond.config, 'getint')
config = trytond.config if MODULE else trytond.config.config

MESSAGE_SIZE = 1024 * 1024
CACHE_SIZE = 64 * 1024 * 1024
KEEP_ALIVE_TIMEOUT = 10
JOURNAL_TIMEOUT = 3600

# The limits of the bus server: each option's default and the least that it may
# be (docs/reference/configuration.md)
SERVER = {
    'threads': (0, 0),
    'session_threads': (4, 1),
    'session_cache': (30, 0),
    'drain': (10, 0),
    'header_size': (16 * 1024, 8192),
    'header_timeout': (10, 1),
    'body_size': (64 * 1024, 1),
    'body_timeout': (10, 1),
    'write_timeout': (30, 1),
    'idle_timeout': (75, 1),
    'max_channels': (256, 1),
    'channel_size': (256, 1),
    'session_polls': (100, 1),
    'max_polls': (20000, 1),
    'max_connections': (25000, 1),
    'hold_time': (20, 1),
    }


# The options of the section [bus], trytond's among them
KNOWN = {
    'class', 'allow_subscribe', 'url_host', 'long_polling_timeout',
    'cache_timeout', 'select_timeout', 'message_size', 'cache_size',
    'journal', 'journal_timeout', 'keep_alive_timeout', 'relay_user',
    'check_access', 'listen', 'reuse_port', 'admin_listen', 'num_proxies',
    'ssl', *SERVER}


def _number(section, option, default=None):
    try:
        return config.getint(section, option, default=default)
    except ValueError as error:
        raise ValueError(
            "[%s] %s in the configuration must be a whole number: %s"
            % (section, option, error)) from error


def _number_of_bus(section, option, name):
    "A setting that trytond.bus reads when it is imported, before 7.8"
    if not MODULE:
        # The tests of trytond set it there.
        value = getattr(sys.modules.get('trytond.bus'), name, None)
        if value is not None:
            return value
    return _number(section, option)


def database_timeout():
    "Seconds after the last subscription at which the listener stops"
    return _number_of_bus('database', 'timeout', '_db_timeout')


def long_polling_timeout():
    "Seconds after which a poll is answered without a message"
    return _number_of_bus(
        'bus', 'long_polling_timeout', '_long_polling_timeout')


def cache_timeout():
    "Seconds for which a message is retained"
    return _number_of_bus('bus', 'cache_timeout', '_cache_timeout')


def select_timeout():
    "Seconds without a notification after which the connection is probed"
    return _number_of_bus('bus', 'select_timeout', '_select_timeout')


def message_size():
    "Bytes that the JSON of a message and its channel may take"
    return _number('bus', 'message_size', MESSAGE_SIZE)


def cache_size():
    "Bytes that the retained messages of a database may take"
    return _number('bus', 'cache_size', CACHE_SIZE)


def journal():
    "Whether messages are also rows of a table"
    return _boolean('bus', 'journal', False)


def journal_timeout():
    "Seconds for which a row of the journal is kept"
    return _number('bus', 'journal_timeout', JOURNAL_TIMEOUT)


def keep_alive_timeout():
    "Seconds in which PostgreSQL has to answer a probe"
    return _number('bus', 'keep_alive_timeout', KEEP_ALIVE_TIMEOUT)


def relay_user():
    "Whether a user's notification is answered on the client's channel"
    return _boolean('bus', 'relay_user', True)


def check_access(default):
    """Whether a user gets the chats only of records that he may read; always
    False where records have no chats"""
    return _boolean('bus', 'check_access', default) and has_chat()


@functools.cache
def has_chat():
    "Whether records have chats in this series"
    # Not imported, as trytond.ir may import trytond.bus.
    directories = [os.path.join(path, 'ir') for path in trytond.__path__]
    return PathFinder.find_spec('trytond.ir.chat', directories) is not None


def session_cache():
    "Seconds for which the answer to a question of access is remembered"
    return _number('bus', 'session_cache', SERVER['session_cache'][0])


def server():
    """The options of the bus server, by name; times in seconds, sizes in
    bytes.

    Raises ValueError for one that can't be read.
    """
    # Where trytond itself is behind the same proxies
    num_proxies = _number('web', 'num_proxies') or 0
    options = {
        'listen': addresses(
            config.get('bus', 'listen', default='localhost:8001')),
        'reuse_port': _boolean('bus', 'reuse_port', False),
        'admin_listen': addresses(
            config.get('bus', 'admin_listen', default='')),
        'allow_subscribe': _boolean('bus', 'allow_subscribe', False),
        'relay_user': relay_user(),
        'check_access': check_access(False),
        'long_polling_timeout': long_polling_timeout(),
        'cache_timeout': cache_timeout(),
        'cache_size': cache_size(),
        'journal_timeout': journal_timeout() if journal() else None,
        'cors': config.get('web', 'cors', default='').split(),
        'ssl': ssl(),
        }
    bounds = {**SERVER, 'num_proxies': (num_proxies, 0)}
    for option, (default, least) in bounds.items():
        options[option] = _number('bus', option, default)
        if options[option] < least:
            raise ValueError(
                "[bus] %s in the configuration must be at least %d, not %d"
                % (option, least, options[option]))
    if not options['listen']:
        raise ValueError("[bus] listen in the configuration is empty")
    return options


def ssl():
    """The paths of the certificate and of its private key with which the bus
    server speaks TLS, or None.

    Raises ValueError where there is a path of one only.
    """
    certificate, privatekey = map(_path_of_ssl, ['certificate', 'privatekey'])
    if not _boolean('bus', 'ssl', bool(certificate or privatekey)):
        return None
    if not certificate:
        raise ValueError(
            "[ssl] certificate in the configuration names no file: "
            "trytond-bus needs it for TLS, or [bus] ssl = False")
    # As for trytond, the key may be in the same file.
    return certificate, privatekey or certificate


def _path_of_ssl(option):
    try:
        # trytond takes a boolean for TLS that a proxy speaks.
        config.getboolean('ssl', option)
    except ValueError:
        return config.get('ssl', option)


def options():
    "The names of the options that the section [bus] has"
    return config.options('bus')


def descriptors(options):
    "How many files a bus server with these options may have to open"
    return options['max_connections'] + 100


def addresses(text):
    "The addresses in a text with commas between them"
    return list(filter(None, map(str.strip, text.split(','))))


def _boolean(section, option, default):
    try:
        return config.getboolean(section, option, default=default)
    except ValueError as error:
        raise ValueError(
            "[%s] %s in the configuration must be a boolean: %s"
            % (section, option, error)) from error
