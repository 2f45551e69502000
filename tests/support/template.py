"""Tryton databases with the modules ir and res, made once for an environment;
their password is admin."""
import fcntl
import importlib.metadata
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from .server import create_tryton


def cached(name, make):
    """Return the path of a file of this environment's trytond, made by
    make(path) if it is not there yet: by one process, others wait for it"""
    cache = Path(sys.prefix) / 'cache'
    cache.mkdir(exist_ok=True)
    path = cache / f'trytond-{importlib.metadata.version("trytond")}-{name}'
    with open(f'{path}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            make(Path(directory) / name)
            os.replace(Path(directory) / name, path)
    return path


def create_on_postgresql(postgresql, name):
    "Make the database of that name"
    def make(path):
        create_tryton({'database': {'uri': postgresql.uri}}, name)
        postgresql.dump(name, path)

    postgresql.create_database(name)
    dump = cached(f'postgresql-{postgresql.build}.sql', make)
    if not postgresql.execute(
            "SELECT 1 FROM pg_tables WHERE tablename = 'ir_module'", name):
        postgresql.restore(name, dump)


def create_on_sqlite(path):
    "Make the database in the file, and return the path of it"
    def make(path):
        path.with_name('tryton.sqlite').touch()
        create_tryton(
            {'database': {'uri': 'sqlite://', 'path': path.parent}},
            'tryton')
        # The backup includes what is still in a write-ahead log
        with closing(sqlite3.connect(
                    path.with_name('tryton.sqlite'))) as source, \
                closing(sqlite3.connect(path)) as target:
            source.backup(target)

    return shutil.copy(cached('sqlite', make), path)
