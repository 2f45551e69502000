"""A connection of a command's own to a database."""
from trytond import backend

from ..source import Dropped
from ..source import connect as connect_to_postgresql
from . import Failure

# That of the driver, which has those of a server that refuses, such as a
# standby, too
DatabaseError = backend.DatabaseOperationalError.__mro__[1]

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
        return connect_to_postgresql(name, TIMEOUT)
    except (OSError, Dropped, DatabaseError) as error:
        raise Failure(
            "no connection to '%s': %s" % (name, in_a_line(error))) from error


def in_a_line(error):
    "The text of an error, which may have several lines"
    return ' '.join(str(error).split())
