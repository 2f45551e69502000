"""The checks of the database."""
import select
import time
import uuid

from trytond import backend

from .. import journal, settings
from ..driver import received, time_limit
from ..logs import in_a_line
from . import Failure
from .connection import DatabaseError, connect

# Time limit in seconds for a notification
NOTIFY_TIMEOUT = 5

# The number of connections for PostgreSQL's superusers and for trytond-bus
RESERVED_CONNECTIONS = 3

# The number of sessions that are read in the time of the rest of a session
# check
SESSIONS = 5000

SESSION_INDEX = '''\
CREATE INDEX CONCURRENTLY ir_session_check ON ir_session (create_uid)'''

# trytond selects the sessions of a user. The number of rows is the planner's
# estimate, because counting them would take long.
LOOK_AT_SESSIONS = '''\
SELECT reltuples, EXISTS (
    SELECT FROM pg_index
    JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = pg_class.oid AND attname = 'create_uid'
        AND indisvalid AND indpred IS NULL)
FROM pg_class WHERE oid = to_regclass('ir_session')
'''


def reached(report, name):
    "Return a connection, or None"
    started = time.monotonic()
    try:
        connection = connect(name)
    except Failure as error:
        report.failed(
            'database', "%s: check [database] uri (or path, on SQLite) and "
            "the name of the database" % str(error).rstrip('.?! '))
        return None
    seconds = time.monotonic() - started
    report.ok(
        'database', "'%s' is reached in %.3f seconds" % (name, seconds),
        seconds=round(seconds, 6))
    return connection


def listening(report, name, connection):
    "Check that a notification of another connection arrives"
    thing = 'LISTEN'
    if backend.name != 'postgresql':
        if journal.of(name):
            report.ok(
                thing, "%s has none, and the journal takes its place"
                % backend.name)
        else:
            report.failed(
                thing, "%s has none, so messages stay in the process that "
                "publishes them: set [bus] journal = True, or use PostgreSQL"
                % backend.name)
        return
    channel = 'trytond_fastbus_check_%s' % uuid.uuid4().hex
    try:
        with time_limit(connection.fileno()):
            connection.cursor().execute('LISTEN "%s"' % channel)
        # Sent from another connection, because a pooler in the mode
        # 'transaction' would deliver it to the connection that it has just
        # served.
        other = connect(name)
        try:
            started = time.monotonic()
            with time_limit(other.fileno()):
                other.cursor().execute('NOTIFY "%s"' % channel)
        finally:
            other.close()
        has_arrived = _arrives(connection, channel)
        with time_limit(connection.fileno()):
            connection.cursor().execute('UNLISTEN "%s"' % channel)
    except Failure as error:
        report.failed(thing, str(error))
        return
    except (OSError, DatabaseError) as error:
        report.failed(thing, "the connection was lost: %s" % in_a_line(error))
        return
    if has_arrived:
        seconds = time.monotonic() - started
        report.ok(
            thing, "a notification arrives after %.3f seconds" % seconds,
            seconds=round(seconds, 6))
    else:
        report.failed(
            thing, "a notification did not arrive within %d seconds: set "
            "PgBouncer, or another pooler before PostgreSQL, to session mode "
            "(pool_mode = session), or let [database] uri name PostgreSQL "
            "itself" % NOTIFY_TIMEOUT)


def _arrives(connection, channel):
    end = time.monotonic() + NOTIFY_TIMEOUT
    while channel not in (name for name, _ in received(connection)):
        left = end - time.monotonic()
        if left < 0:
            return False
        select.select([connection], [], [], left)
    return True


def journal_table(report, name, connection):
    "Check the table and the privileges of the role"
    table = journal.of(name)
    if not table:
        report.ok('journal', "[bus] journal is off")
        return
    try:
        is_there = table.look(connection)
    except (journal.Unusable, DatabaseError) as error:
        report.failed('journal', in_a_line(error))
        return
    report.ok('journal', "the table %s %s" % (
            journal.TABLE, "can be used" if is_there
            else "can be made, and the first publisher makes it"))


def privileges(report, name, connection):
    "Report the privileges that any role of the server has in the database"
    if backend.name != 'postgresql':
        return
    thing, cursor = 'privileges', connection.cursor()
    try:
        cursor.execute(
            "SELECT pg_catalog.has_database_privilege("
            "'public', pg_catalog.current_database(), 'CONNECT')")
        may_connect, = cursor.fetchone()
        cursor.execute(
            "SELECT n FROM pg_catalog.unnest("
            "pg_catalog.current_schemas(false)) AS n "
            "WHERE pg_catalog.has_schema_privilege('public', n, 'CREATE')")
        schemas = [schema for schema, in cursor.fetchall()]
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolcanlogin "
            "AND NOT rolsuper AND rolname <> CURRENT_USER)")
        has_others, = cursor.fetchone()
    except DatabaseError as error:
        report.failed(thing, in_a_line(error))
        return
    if not has_others:
        report.ok(thing, "the server has no other role that may log in")
        return
    if schemas:
        report.warning(
            thing, "any role may create objects in the schema '%s', and "
            "trytond's own statements may then use them: run REVOKE CREATE ON "
            "SCHEMA \"%s\" FROM PUBLIC" % (schemas[0], schemas[0]))
    if may_connect:
        report.warning(
            thing, "any role may connect to '%s', read the messages of the "
            "bus by LISTEN and send messages by NOTIFY: run REVOKE CONNECT ON "
            "DATABASE \"%s\" FROM PUBLIC, and grant it to trytond's role"
            % (name, name))
    if not schemas and not may_connect:
        report.ok(
            thing, "CONNECT and CREATE are not granted to every role (PUBLIC)")


def connections(report, name, connection):
    """Compare the connections that PostgreSQL allows with those that a process
    of trytond may open"""
    if backend.name != 'postgresql':
        return
    maxconn = settings.read('maxconn', 'database')
    cursor = connection.cursor()
    try:
        cursor.execute('SHOW max_connections')
        allowed = int(cursor.fetchone()[0])
    except DatabaseError as error:
        report.failed('connections', in_a_line(error))
        return
    if maxconn + RESERVED_CONNECTIONS > allowed:
        report.warning(
            'connections', "PostgreSQL allows %d (max_connections), and one "
            "process of trytond may take %d (%s) for a database: raise the "
            "first or lower the second" % (
                allowed, maxconn, "[database] maxconn"
                if settings.config.get('database', 'maxconn')
                else "the default of [database] maxconn"))
    else:
        report.ok(
            'connections', "PostgreSQL allows %d, and each process of trytond "
            "takes up to %d ([database] maxconn) for a database"
            % (allowed, maxconn))


def sessions(report, name, connection):
    "Check that a session check does not read the whole of a long table"
    if backend.name != 'postgresql':
        return
    cursor = connection.cursor()
    try:
        cursor.execute(LOOK_AT_SESSIONS)
        row = cursor.fetchone()
    except DatabaseError as error:
        report.failed('sessions', in_a_line(error))
        return
    if not row:
        report.failed(
            'sessions', "'%s' has no table ir_session, so it is not a "
            "database of Tryton: check its name, or run trytond-admin --all"
            % name)
        return
    rows, has_index = row
    if has_index:
        report.ok('sessions', "ir_session has an index for session checks")
    elif rows > SESSIONS:
        report.warning(
            'sessions', "a session check of trytond reads all of ir_session, "
            "about %d rows, because an index is missing: %s" % (
                rows, SESSION_INDEX))
    else:
        report.ok(
            'sessions', "ir_session is short enough to need no index")


def session_address(connection, token):
    """The address that a session was opened from, None if it is unknown
    (before 7.8)"""
    if not connection or not settings.MODULE:
        return None
    cursor = connection.cursor()
    mark = '%s' if backend.name == 'postgresql' else '?'
    cursor.execute(
        'SELECT ip_address FROM ir_session WHERE key = %s' % mark, (token,))
    row = cursor.fetchone()
    return row and row[0]
