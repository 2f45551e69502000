"""The configuration, read from trytond's at each call."""
import sys

import trytond.config

# A module up to 7.4, an object before 8.0 (where the name warns).
if hasattr(trytond.config, 'getint'):
    config = trytond.config
else:
    config = trytond.config.config

MESSAGE_SIZE = 1024 * 1024
CACHE_SIZE = 64 * 1024 * 1024
KEEP_ALIVE_TIMEOUT = 10


def _number(section, option, default=None, name=None):
    # Up to 7.4 trytond.bus reads these when it is imported, and its tests
    # set them there.
    bus = sys.modules.get('trytond.bus')
    value = getattr(bus, name, None) if name else None
    if value is None:
        try:
            value = config.getint(section, option, default=default)
        except ValueError as error:
            raise ValueError(
                "[%s] %s in the configuration must be a whole number: %s"
                % (section, option, error)) from error
    return value


def database_timeout():
    "Seconds after the last subscription at which the listener stops"
    return _number('database', 'timeout', name='_db_timeout')


def long_polling_timeout():
    "Seconds after which a poll is answered without a message"
    return _number(
        'bus', 'long_polling_timeout', name='_long_polling_timeout')


def cache_timeout():
    "Seconds for which a message is retained"
    return _number('bus', 'cache_timeout', name='_cache_timeout')


def select_timeout():
    "Seconds without a notification after which the connection is probed"
    return _number('bus', 'select_timeout', name='_select_timeout')


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
