"""The check of sessions, compared with trytond's own."""
import datetime as dt
import logging
import secrets
import sqlite3

import pytest
from support.server import run_python
from trytond_fastbus import readonly, refusals, settings
from trytond_fastbus.sessions import Sessions

DAY = 24 * 60 * 60
MAX_AGE = 30 * DAY


@pytest.fixture
def sessions():
    sessions = Sessions(['named'])
    yield sessions
    sessions.close()


@pytest.fixture
def database(listening):
    "The database of all tests. Each has its own sessions."
    return listening


@pytest.fixture
def make(database, postgresql):
    "Return the token of a new session"
    def make(user=1, age=0, address='127.0.0.1', token=None):
        token = token or secrets.token_hex(32)
        # As trytond compares it with datetime.now()
        date = dt.datetime.now() - dt.timedelta(seconds=age)
        values = {'key': token, 'create_uid': user, 'create_date': date}
        if settings.MODULE and address:
            values['ip_address'] = address
        postgresql.execute("INSERT INTO ir_session (%s) VALUES ('%s')" % (
                ', '.join(values), "', '".join(map(str, values.values()))),
            database)
        return token
    return make


def test_sessions_are_checked_as_trytond_checks_them(
        sessions, make, database):
    valid, expired, old = make(), make(age=MAX_AGE + 60), make(age=29 * DAY)
    other = make(user=2)
    twice = make(age=MAX_AGE + 60)
    make(token=twice)
    cases = [
        ((1, valid), 'valid'),
        ((1, old), 'valid'),
        ((1, twice), 'valid'),
        ((2, other), 'valid'),
        ((1, expired), 'invalid'),
        ((1, other), 'invalid'),
        ((2 ** 32 - 1, valid), 'invalid'),
        ((1, valid[:-1]), 'invalid'),
        ((1, valid + ' '), 'invalid'),
        ((1, valid.upper()), 'invalid'),
        ((1, '0' * 64), 'invalid'),
        ((1, 'é' * 64), 'invalid'),
        ((1, '\U0001f600'), 'invalid'),
        ((1, 'a\0b'), 'invalid'),
        ((1, '%'), 'invalid'),
        ((1, "' OR true --"), 'invalid'),
        ((1, 'x' * 100_000), 'invalid'),
        ]
    asked = [(user, token, '127.0.0.1', False) for (user, token), _ in cases]
    assert sessions.check(database, asked) == [check for _, check in cases]
    # One by one, the sessions have the same results as together.
    for session, (_, check) in zip(asked, cases, strict=True):
        assert sessions.check(database, [session]) == [check]


def test_named_database_that_is_not_trytons_is_logged(caplog):
    for named, lines in [([], 0), (['postgres'], 1)]:
        sessions = Sessions(named)
        try:
            for _ in range(2):
                assert sessions.check(
                    'postgres', [(1, 'token', '127.0.0.1', False)]
                    ) == ['unknown']
        finally:
            sessions.close()
        assert len(caplog.records) == lines
    assert caplog.messages[0].startswith(
        "session check on 'postgres' failed: it has no tables of Tryton")
    assert not caplog.records[0].exc_info


def test_age_is_counted_in_seconds(sessions, make, database, configure):
    tokens = [make(age=age) for age in [30, 90, -30, -90]]
    with_age = [(1, token, '127.0.0.1', False) for token in tokens]
    configure('session', max_age=60)
    assert sessions.check(database, with_age) == [
        'valid', 'invalid', 'valid', 'invalid']


@pytest.mark.parametrize('date', ['NULL', "'infinity'", "'-infinity'"])
def test_session_without_a_date_fails_no_other(
        sessions, make, database, postgresql, date):
    good, bad = make(), make()
    postgresql.execute(
        "UPDATE ir_session SET create_date = %s WHERE key = '%s'" % (
            date, bad), database)
    asked = [(1, token, '127.0.0.1', False) for token in [bad, good]]
    assert sessions.check(database, asked) == ['invalid', 'valid']
    # trytond's own check fails for all sessions of such a user.
    postgresql.execute(
        "DELETE FROM ir_session WHERE key = '%s'" % bad, database)


def test_no_session_is_deleted(sessions, make, database, postgresql):
    token = make(age=10 * MAX_AGE)
    assert sessions.check(database, [(1, token, None, False)]) == ['invalid']
    assert postgresql.execute(
        "SELECT 1 FROM ir_session WHERE key = '%s'" % token, database)


@pytest.mark.parametrize('opened,address,is_local,check', [
        ('127.0.0.1', '127.0.0.1', False, 'valid'),
        ('127.0.0.1', '::1', True, 'valid'),
        ('127.0.0.1', '::1', False, 'invalid'),
        (None, '::1', True, 'valid'),
        ('192.0.2.1', '::ffff:192.0.2.1', False, 'valid'),
        ('::ffff:192.0.2.1', '192.0.2.1', False, 'valid'),
        ('2001:db8::1', '2001:0DB8:0::1', False, 'valid'),
        (None, None, False, 'valid'),
        ('192.0.2.1', '192.0.2.2', False, 'invalid'),
        ('192.0.2.1', '127.0.0.1', True, 'invalid'),
        ('127.0.0.1', None, False, 'invalid'),
        (None, '127.0.0.1', False, 'invalid'),
        ('127.0.0.1', 'nonsense', False, 'invalid'),
        ])
def test_refusal_for_the_address_names_both(
        sessions, make, database, caplog, opened, address, is_local, check):
    if not settings.MODULE:
        pytest.skip("sessions are bound to an address from trytond 7.8 on")
    token = make(address=opened)
    session = 1, token, address, is_local
    assert sessions.check(database, [session]) == [check]
    if check == 'invalid':
        assert str(address) in caplog.text
        assert str(opened) in caplog.text or address == 'nonsense'


def test_database_that_does_not_exist_or_is_none_of_trytond(
        sessions, database, postgresql):
    empty = database + '_empty'
    postgresql.create_database(empty)
    try:
        names = [database, 'nothing', 'named', empty, 'template1', 'a\0b',
            "' OR true --", 'x' * 1000, '']
        assert sessions.exist(names) == [
            name in {database, 'named', empty} for name in names]
        session = 1, 'token', '127.0.0.1', False
        assert sessions.check(empty, [session] * 2) == ['unknown'] * 2
        assert sessions.check('nothing', [session]) == ['failed']
    finally:
        sessions.close()
        postgresql.drop_database(empty)


def test_connection_that_was_closed_is_replaced(
        sessions, make, database, postgresql):
    session = 1, make(), '127.0.0.1', False
    for _ in range(2):
        assert sessions.check(database, [session]) == ['valid']
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = '%s'" % database)


def test_table_that_is_locked_fails_in_time(
        sessions, make, database, postgresql, monkeypatch):
    from trytond.transaction import Transaction
    session = 1, make(), '127.0.0.1', False
    monkeypatch.setattr(readonly, 'QUERY_TIMEOUT', 1)
    with Transaction().start(database, 0) as transaction:
        transaction.connection.cursor().execute('LOCK TABLE ir_session')
        assert sessions.check(database, [session]) == ['failed']
        # No session is left waiting.
        assert not postgresql.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND database = ("
            "SELECT oid FROM pg_database WHERE datname = '%s')" % database)
    assert sessions.check(database, [session]) == ['valid']


@pytest.mark.parametrize('away,back', [
        ('ALTER DATABASE "{}" ALLOW_CONNECTIONS false',
            'ALTER DATABASE "{}" ALLOW_CONNECTIONS true'),
        # As during a restore
        ('ALTER TABLE ir_session RENAME TO other',
            'ALTER TABLE other RENAME TO ir_session'),
        ], ids=['connection', 'table'])
def test_failure_is_logged_once_and_so_is_its_end(
        sessions, database, postgresql, tryton_template, caplog, away, back):
    caplog.set_level(logging.INFO)
    session = 1, 'token', '127.0.0.1', False
    other = database + '_away'
    postgresql.create_database(other, tryton_template)
    try:
        on = other if 'TABLE' in away else 'postgres'
        postgresql.execute(away.format(other), on)
        for _ in range(3):
            assert sessions.check(other, [session]) == ['failed']
        postgresql.execute(back.format(other), on)
        assert sessions.check(other, [session]) == ['invalid']
    finally:
        sessions.close()
        postgresql.drop_database(other)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if 'check on' in line]) == 1
    assert len([line for line in lines if 'checked again' in line]) == 1


def test_few_connections_are_kept(sessions, postgresql, tryton_template):
    names = ['kept%d' % number for number in range(readonly.KEEP + 2)]
    session = 1, 'token', '127.0.0.1', False
    try:
        for name in names:
            postgresql.create_database(name, tryton_template)
            assert sessions.check(name, [session]) == ['invalid']
        open_ = postgresql.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'kept%'")
        assert open_ == [[str(readonly.KEEP)]]
    finally:
        sessions.close()
        for name in names:
            postgresql.drop_database(name)


def test_check_of_trytond_is_used_if_it_is_wanted(
        sessions, make, database, configure):
    configure('bus', session_check='trytond')
    asked = [
        (1, token, '127.0.0.1', False)
        for token in [make(), '0' * 64, 'é', 'a\0b']]
    assert sessions.check(database, asked) == ['valid'] + ['invalid'] * 3


def test_refusals_are_few_lines(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    log = refusals.Refusals()
    monkeypatch.setattr(refusals, 'ADDRESSES_MAX', 3)
    for number in range(1000):
        log.add('db', 1, '192.0.2.%d' % (number % 10), 'failed')
    assert len(caplog.records) == 4
    assert "session failed for '1' from '192.0.2.0' on database 'db'" in (
        caplog.text)
    log.flush()
    assert len(caplog.records) == 8
    assert "99 more polls from '192.0.2.0'" in caplog.text
    assert "699 more polls from 'other addresses'" in caplog.text
    log.flush()
    log.flush()
    assert len(caplog.records) == 8
    log.add('db', 1, None, 'expired')
    assert caplog.records[-1].levelno == logging.INFO


def test_sessions_of_sqlite(sqlite_database):
    with sqlite3.connect(sqlite_database) as connection:
        has_address = any(
            column[1] == 'ip_address' for column in connection.execute(
                'PRAGMA table_info(ir_session)'))
        now = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
        for key, date in [
                ('new', now), ('old', now - dt.timedelta(days=31)),
                ('bad', 'nonsense')]:
            values = {
                'key': key, 'create_uid': 1, 'create_date': str(date)}
            if has_address:
                values['ip_address'] = '127.0.0.1'
            connection.execute(
                'INSERT INTO ir_session (%s) VALUES (%s)' % (
                    ', '.join(values), ', '.join('?' * len(values))),
                list(values.values()))
    connection.close()
    (sqlite_database.parent / 'empty.sqlite').touch()
    result = run_python("""
from trytond_fastbus.sessions import Sessions
sessions = Sessions([])
print(sessions.exist(
    ['tryton', 'empty', 'other', '../tryton', '', ':memory:']))
asked = [(1, key, '127.0.0.1', False) for key in [
    'new', 'old', 'none', 'é', 'bad']]
print(sessions.check('tryton', asked))
print(sessions.check('empty', asked[:1]))
print(sessions.check('other', asked[:1]))
""", {'database': {
                'uri': 'sqlite://', 'path': sqlite_database.parent}})
    assert result.stdout.splitlines() == [
        '[True, True, False, False, False, False]',
        "['valid', 'invalid', 'invalid', 'invalid', 'invalid']",
        "['unknown']",
        "['unknown']",
        ], result.stderr
