"""Where the messages of a database come from."""
from trytond import backend

from .. import journal
from .driver import Dropped, connect
from .postgresql import Deaf, PostgreSQL
from .sqlite import SQLite

__all__ = ['Deaf', 'Dropped', 'connect', 'of']


def of(name):
    "The class of the source for a database, or None where there is none"
    if hasattr(backend.Database, '_connection_params'):
        return PostgreSQL
    # Without a journal, transactions of this process deliver to it.
    return SQLite if journal.of(name) else None
