"""The sources of the messages of a database."""
from trytond import backend

from .. import journal
from .postgresql import Deaf, PostgreSQL
from .sqlite import SQLite

__all__ = ['Deaf', 'of']


def of(name):
    "The class of the source for a database, or None if there is none"
    if hasattr(backend.Database, '_connection_params'):
        return PostgreSQL
    # Without a journal, the transactions of this process deliver its messages.
    return SQLite if journal.of(name) else None
