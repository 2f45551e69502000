"""The configuration, read from trytond's at each call."""
import sys

import trytond.config

# A module from 7.8 on, an object of it before.
MODULE = hasattr(trytond.config, 'getint')
config = trytond.config if MODULE else trytond.config.config

MESSAGE_SIZE = 1024 * 1024
CACHE_SIZE = 64 * 1024 * 1024
KEEP_ALIVE_TIMEOUT = 10


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


def keep_alive_timeout():
    "Seconds in which PostgreSQL has to answer a probe"
    return _number('bus', 'keep_alive_timeout', KEEP_ALIVE_TIMEOUT)


def relay_user():
    "Whether a user's notification is answered on the client's channel"
    try:
        return config.getboolean('bus', 'relay_user', default=True)
    except ValueError as error:
        raise ValueError(
            "[bus] relay_user in the configuration must be a boolean: %s"
            % error) from error
