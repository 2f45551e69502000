"""The commands' own connections to a database."""
from trytond import backend

from ..driver import Dropped
from ..driver import connect as connect_to_postgresql
from ..logs import in_a_line
from . import Failure

# The base class of the driver, which includes the errors of a server that
# refuses, such as a standby
DatabaseError = backend.DatabaseOperationalError.__mro__[1]

# Seconds after which a host that does not answer fails
TIMEOUT = 10


def connect(name):
    """Return a new connection in autocommit.

    From 8.0 on, trytond's pool tries for half a minute and does not report the
    reason of a failure. Raises Failure with the reason.
    """
    try:
        if backend.name != 'postgresql':
            return backend.Database(name).get_connection(autocommit=True)
        return connect_to_postgresql(name, TIMEOUT)
    except (OSError, Dropped, DatabaseError) as error:
        raise Failure(
            "no connection to '%s': %s" % (name, in_a_line(error))) from error
