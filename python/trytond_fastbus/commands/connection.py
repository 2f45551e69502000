"""A connection of a command's own to a database, and the class of its bus."""
from trytond import backend

from . import Failure

# Seconds for which a host may not answer
TIMEOUT = 10


def connect(name):
    """Return a new connection in autocommit.

    The pool of trytond from 8.0 on tries for half a minute, and does not tell
    why it failed. Raises Failure, with the reason.
    """
    try:
        if backend.name != 'postgresql':
            return backend.Database(name).get_connection(autocommit=True)
        parameters = dict(backend.Database._connection_params(name))
        if 'conninfo' in parameters:
            import psycopg as driver
            uri = parameters.pop('conninfo')
        else:
            import psycopg2 as driver
            uri = parameters.pop('dsn')
        if 'connect_timeout' not in uri:
            parameters['connect_timeout'] = TIMEOUT
        connection = driver.connect(uri, **parameters)
        connection.autocommit = True
        return connection
    except backend.DatabaseOperationalError as error:
        raise Failure(
            "no connection to '%s': %s" % (name, in_a_line(error))) from error


def in_a_line(error):
    "The text of an error, which may have several lines"
    return ' '.join(str(error).split())
