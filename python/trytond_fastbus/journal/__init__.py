"""The journal: the messages of a database as rows of a table in it.

A row is written in the transaction of its message. Journal numbers rise in the
order of the commits, mostly without gaps. On PostgreSQL a trigger assigns a
row its number in COMMIT and also notifies the listeners. On SQLite, which has
one writer at a time, the INSERT assigns it.
"""
import os

import trytond.config
from trytond import backend

from .. import settings
from . import schema
from .common import NUMBER_MAX, Unusable
from .postgresql import PostgreSQL
from .schema import TABLE
from .sqlite import SQLite

__all__ = [
    'NUMBER_MAX', 'PostgreSQL', 'SQLite', 'TABLE', 'Unusable', 'drop', 'of',
    'sql']


def of(name, notify='bus'):
    """The journal of a database, or None if it must not have one.

    notify is the PostgreSQL channel that the class of the bus listens to
    (`_channel`). Rows belong to the classes with the same channel.
    """
    if settings.journal():
        return _table(name, notify)


def _table(name, notify='bus'):
    if backend.name == 'postgresql':
        return PostgreSQL(name, notify)
    # A database in memory belongs to one connection.
    if backend.name == 'sqlite' and name != ':memory:':
        return SQLite(name, notify)


def sql():
    "The statements that make the journal, for trytond's role"
    if backend.name != 'postgresql':
        return SQLite.MAKE + ';\n'
    uri = trytond.config.parse_uri(settings.config.get('database', 'uri'))
    role = uri.username or os.environ.get('PGUSER') or 'trytond'
    return schema.MAKE + schema.GRANT.format(role=role.replace('"', '""'))


def drop(name):
    """Remove the journal of a database; return whether there was one.

    Raises the driver's error if the role has no privilege for that.
    """
    table = _table(name)
    if not table:
        return False
    database = backend.Database(name)
    connection = database.get_connection(autocommit=True)
    try:
        return table.drop(connection)
    finally:
        database.put_connection(connection)
