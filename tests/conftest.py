"""The databases of the tests. trytond is configured before it is imported.

The configuration of trytond is global to a process and names its backend, so a
session of pytest runs on PostgreSQL, whose port is known before it starts. A
test on SQLite runs a process of its own (support.server).
"""
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT)]
# A shell lets programs in the background ignore the signal, and their children
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

from support.bus import configured, listen, stop_listener  # noqa: E402
from support.disk import SmallDisk  # noqa: E402
from support.peer import Peer  # noqa: E402
from support.postgresql import PostgreSQL  # noqa: E402
from support.server import write_config  # noqa: E402
from support.template import (  # noqa: E402
    create_on_postgresql,
    create_on_sqlite,
)

_server = PostgreSQL()
_directory = Path(tempfile.mkdtemp(prefix='trytond-fastbus-'))
os.environ['TRYTOND_CONFIG'] = str(write_config(_directory / 'trytond.conf', {
            'database': {'uri': _server.uri, 'path': _directory},
            'bus': {'select_timeout': 1, 'long_polling_timeout': 20},
            }))
os.environ['TRYTOND_DATABASE_URI'] = _server.uri

# The files whose tests take longest. They begin first, because the other
# workers would wait for a long test that begins last.
SLOW = [
    'test_check', 'test_faults', 'test_journal', 'test_fork', 'test_demo',
    'test_chat', 'test_gevent', 'test_server', 'test_commands',
    'test_journal_sqlite', 'test_sqlite', 'test_preforking_servers',
    'test_names', 'test_route', 'test_journal_table', 'test_listener',
    'test_journal_numbers', 'test_page', 'test_reconnection',
    'test_server_tls', 'test_retention', 'test_cli', 'test_threads',
    'test_user_notification', 'test_getting_started']

SERIES = '.'.join(importlib.metadata.version('trytond').split('.')[:2])


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))


def pytest_unconfigure():
    _server.destroy()
    shutil.rmtree(_directory, ignore_errors=True)


@pytest.fixture(scope='session')
def series():
    "The series of trytond under test, such as '8.2'"
    return SERIES


@pytest.fixture
def configure():
    "configure(section, **options): set trytond's options for the test"
    with ExitStack() as stack:
        yield lambda section, **options: stack.enter_context(
            configured(section, **options))


@pytest.fixture(scope='session')
def postgresql():
    "The cluster of the session, a support.postgresql.PostgreSQL"
    return _server.start()


@pytest.fixture(scope='session')
def tryton_template(postgresql):
    "The name of a database with the modules ir and res; password: admin"
    template = 'tryton'
    create_on_postgresql(postgresql, template)
    return template


@contextmanager
def tryton_database(postgresql, template):
    name = f'test_{uuid.uuid4().hex[:12]}'
    postgresql.create_database(name, template)
    yield name
    stop_listener(name)
    from trytond import backend
    from trytond.pool import Pool
    backend.Database(name).close()
    if name in Pool.database_list():
        Pool.stop(name)
    postgresql.drop_database(name)


@pytest.fixture
def database(postgresql, tryton_template):
    "The name of a Tryton database on PostgreSQL of this test's own"
    with tryton_database(postgresql, tryton_template) as name:
        yield name


@pytest.fixture(scope='module')
def listening(postgresql, tryton_template):
    "The name of one that a module's tests share, with a listener at work"
    with tryton_database(postgresql, tryton_template) as name:
        listen(name)
        yield name


@pytest.fixture
def peer(postgresql):
    "peer(uri, **options): another process with the journal, as a Peer"
    with ExitStack() as stack:
        def peer(uri=postgresql.uri, **options):
            return stack.enter_context(Peer({
                        'database': {'uri': uri},
                        'bus': {
                            'journal': True, 'select_timeout': 1,
                            'long_polling_timeout': 30, **options},
                        }))
        yield peer


@pytest.fixture
def limited(postgresql, database):
    "The configuration for a role of PostgreSQL that may not create anything"
    role = 'limited_' + database
    postgresql.execute(
        f'CREATE ROLE {role} LOGIN; '
        'REVOKE CREATE ON SCHEMA public FROM PUBLIC; '
        f'GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; '
        f'GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}', database)
    yield {
        'database': {'uri': postgresql.uri.replace('postgres@', role + '@')},
        'bus': {'journal': True, 'select_timeout': 1},
        }
    postgresql.execute(f'DROP OWNED BY {role}; DROP ROLE {role}', database)


@pytest.fixture
def small_disk():
    "A file system of 64 MB, a support.disk.SmallDisk"
    try:
        disk = SmallDisk(64).__enter__()
    except OSError as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    yield disk
    disk.__exit__()


@pytest.fixture
def channel():
    "The name of a channel of this test's own"
    return f'test:{uuid.uuid4()}'


@pytest.fixture
def sqlite_database(tmp_path):
    """The path of a Tryton database on SQLite of this test's own: [database]
    uri is sqlite://, path is its directory, the name is tryton"""
    return create_on_sqlite(tmp_path / 'tryton.sqlite')
