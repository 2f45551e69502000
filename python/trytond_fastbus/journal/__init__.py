"""The journal: the messages of a database as rows of a table in it.

A row is written in the transaction of its message. Its number is the place of
that transaction among all: numbers rise in the order of the commits, with
gaps. On PostgreSQL a trigger gives it within COMMIT, where it also notifies
the listeners; on SQLite, with one writer at a time, the INSERT does.
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
    """The journal of a database, or None where it has to have none.

    notify is the channel of PostgreSQL that the class of the bus listens to
    (`_channel`): rows are for the classes with the same one.
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
    """Remove the journal of a database; whether there was one.

    Raises the error of the driver where the role may not do that.
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
