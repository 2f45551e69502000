"""trytond-bus check names working parts, and each fault with its remedy."""
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.bus import publish
from support.front import Front
from support.nginx import make_certificate
from support.pgbouncer import PgBouncer, find_pgbouncer
from support.postgresql import free_port
from support.server import BusServer, TrytondServer, environment, write_config
from trytond_fastbus import settings


@pytest.fixture(scope='module')
def database(listening):
    "The database of all tests. They change nothing in it."
    return listening


@pytest.fixture(scope='module')
def trytond(postgresql, database, tmp_path_factory):
    "A trytond behind one proxy"
    directory = tmp_path_factory.mktemp('trytond')
    with TrytondServer(directory, {
                'database': {'uri': postgresql.uri},
                'web': {'num_proxies': 1},
                }, [database]) as server:
        yield server


@pytest.fixture
def serve(postgresql, database, tmp_path):
    "Return a bus server with these options of [bus]"
    def serve(sections=None, **options):
        return BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'num_proxies': 1, **options},
                **(sections or {}),
                }, [database])
    return serve


@pytest.fixture
def check(postgresql, database, tmp_path):
    "Return the finished command with this configuration"
    def check(*arguments, sections=None, name=database, before=(), **options):
        config = write_config(tmp_path / 'trytond.conf', {
                'database': {'uri': postgresql.uri},
                'bus': options, **(sections or {})})
        return run(tmp_path, '-c', config, '-d', name, *arguments,
            before=before)
    return check


def run(directory, *arguments, password='admin', before=(), **environ):
    path = directory / 'password'
    path.write_text(password)
    return subprocess.run(
        [*before, Path(sys.executable).parent / 'trytond-bus', 'check',
            *arguments],
        env=environment(TRYTONPASSFILE=str(path), NO_PROXY='*', **environ),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)


def line(done, thing):
    """Return the line about a thing. Fail with the whole output if there is
    none"""
    lines = [line for line in done.stdout.splitlines()
        if line.split(maxsplit=1)[1].startswith(thing + ':')]
    assert lines, (done.stdout, done.stderr)
    return ' '.join(lines)


def failed(done, thing, *words):
    "Assert that a check has failed, with these words"
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr == ''
    text = line(done, thing)
    assert text.startswith('failed ')
    for word in words:
        assert word in text


def warned(done, thing, *words):
    assert done.returncode == 0, (done.stdout, done.stderr)
    text = line(done, thing)
    assert 'warning ' in text
    for word in words:
        assert word in text


def sessions(postgresql, database):
    (number,), = postgresql.execute(
        'SELECT count(*) FROM ir_session', database)
    return number


def test_all_is_well(
        check, serve, trytond, database, postgresql):
    before = sessions(postgresql, database)
    with serve(sections={'web': {'cors': 'https://sao.example.com'}}) as bus:
        with Front(bus.url, trytond.url) as front:
            done = check(
                '--url', front.url, '--user', 'admin',
                '--origin', 'https://sao.example.com', max_connections=300)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stderr == ''
    things = [line.split()[1] for line in done.stdout.splitlines()
        if line.startswith('ok ')]
    for thing in [
            'configuration:', 'class:', 'allow_subscribe:', 'open',
            'database:', 'LISTEN:', 'journal:', 'login:', 'POST:', 'poll:',
            'CORS:']:
        assert thing in things, done.stdout
    assert 'a message arrives' in line(done, 'poll')
    assert sessions(postgresql, database) == before


def test_trytond_answers_polls_itself(check, trytond, database):
    done = check('--url', trytond.url, '--user', 'admin', journal=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert 'a message arrives' in line(done, 'poll')


@pytest.mark.parametrize('is_server', [False, True])
def test_message_is_its_own(
        check, serve, trytond, database, is_server):
    with serve() if is_server else nullcontext() as bus:
        with Front(bus.url if bus else trytond.url, trytond.url) as front:
            arguments = ['--url', front.url, '--user', 'admin']
            for number in range(2):
                # They are retained for the next poll of the user.
                publish(database, 'user:1', {'type': 'check', 'n': number})
                publish(database, 'user:1', {
                        'type': 'notification', 'title': "T", 'body': "B"})
                done = check(*arguments)
                assert line(done, 'poll').startswith('ok '), done.stdout


def test_loopback_proves_no_proxies(check, trytond):
    done = check('--url', trytond.url, '--user', 'admin')
    if settings.MODULE:
        warned(done, 'num_proxies', 'not proved', '--url')
    else:
        # A session has no address.
        assert 'num_proxies' not in done.stdout


@pytest.mark.one_series
@pytest.mark.parametrize('server, here, proxy, status, words', [
        (2, 2, 60, 'ok', 'waits for 2 seconds'),
        (1, 9, 60, 'warning', 'long_polling_timeout is 9 here'),
        (9, 9, 5, 'failed', 'proxy_read_timeout'),
        ])
def test_patience(
        check, serve, trytond, server, here, proxy, status, words):
    with serve(long_polling_timeout=server) as bus:
        with Front(bus.url, trytond.url, timeout=proxy) as front:
            done = check(
                '--url', front.url, '--user', 'admin', '--patient',
                long_polling_timeout=here)
    text = line(done, 'patience')
    assert text.startswith(status)
    assert words in text


@pytest.mark.one_series
def test_rest_is_looked_at_with_values_that_are_refused(check):
    done = check(journal='maybe', url_host='localhost', threads=10 ** 9)
    failed(done, 'configuration', '[bus] journal = maybe',
        '[bus] url_host = localhost', '[bus] threads = 1000000000')
    for thing in ['database', 'LISTEN', 'connections', 'sessions']:
        assert line(done, thing).startswith('ok ')


@pytest.mark.one_series
def test_environment_is_reported(tmp_path, postgresql, database):
    done = run(
        tmp_path, TRYTOND_DATABASE_URI=postgresql.uri,
        TRYTOND_DATABASE_NAMES=database, TRYTOND_BUS__ALLOW_SUBSCRIBE='True',
        TRYTOND_BUS__JORNAL='True', TRYTOND_BUS_LISTEN='*:8001')
    assert done.returncode == 0, (done.stdout, done.stderr)
    text = line(done, 'configuration')
    assert (
        'from the environment: TRYTOND_BUS__ALLOW_SUBSCRIBE, '
        'TRYTOND_BUS__JORNAL, TRYTOND_DATABASE_URI') in text
    assert 'TRYTOND_BUS__JORNAL: [bus] jornal is no option' in text
    assert 'is TRYTOND_BUS__LISTEN meant, with two underscores?' in text
    assert f"'{database}' is reached" in line(done, 'database')


@pytest.mark.one_series
def test_variable_that_a_file_overrides(tmp_path, postgresql, database):
    config = write_config(tmp_path / 'trytond.conf', {
            'database': {'uri': postgresql.uri}, 'bus': {'drain': 5}})
    done = run(
        tmp_path, '-c', config, '-d', database, TRYTOND_BUS__DRAIN='6',
        TRYTOND_BUS__ALLOW_SUBSCRIBE='True')
    warned(done, 'configuration', 'TRYTOND_BUS__DRAIN: it has no effect')
    assert 'ALLOW_SUBSCRIBE: ' not in done.stdout


@pytest.mark.one_series
def test_all_is_one_json_object(check, trytond):
    done = check('--url', trytond.url, '--user', 'admin', '--json', jornal=1)
    found = json.loads(done.stdout)
    assert found['status'] == 'warning'
    things = {finding['thing']: finding for finding in found['findings']}
    assert things['poll']['status'] == 'ok'
    assert things['poll']['seconds'] > 0
    assert things['database']['seconds'] > 0


def test_without_a_server_the_rest_is_looked_at(check):
    done = check()
    assert done.returncode == 0
    assert 'POST' not in done.stdout


@pytest.mark.one_series
@pytest.mark.parametrize('arguments', [
        ['--user', 'admin'], ['--origin', 'https://sao.example.com'],
        ['--url', 'localhost:8000'], ['--unknown']])
def test_usage(check, arguments):
    done = check(*arguments)
    assert done.returncode == 2
    assert 'usage: trytond-bus check' in done.stderr


@pytest.mark.one_series
@pytest.mark.parametrize('text, word', [
        (None, 'No such file'),
        ('allow_subscribe = True', 'stands before the first'),
        ('[bus]\na = 1\na = 2\n', '[bus] a is given twice'),
        ('[bus]\nmax_polls = many\n', 'max_polls'),
        ('[bus]\nlisten =\n', 'listen'),
        ])
def test_configuration_that_can_not_be_read(tmp_path, text, word):
    path = tmp_path / 'trytond.conf'
    if text:
        path.write_text(text)
    done = run(tmp_path, '-c', path, '-d', 'tryton')
    failed(done, 'configuration', word)


@pytest.mark.one_series
def test_option_that_is_misspelt(check):
    warned(check(jornal=True), 'configuration',
        '[bus] jornal', "is 'journal' meant?")


@pytest.mark.one_series
@pytest.mark.parametrize('days, status', [(30, 'ok'), (13, 'warning')])
def test_certificate(check, serve, tmp_path, monkeypatch, days, status):
    path, key = make_certificate(tmp_path, days)
    monkeypatch.setenv('SSL_CERT_FILE', str(path))
    sections = {'ssl': {'certificate': path, 'privatekey': key}}
    with serve(sections) as server:
        done = check(
            '--url', f'https://localhost:{server.port}', sections=sections)
    assert done.returncode == 0, (done.stdout, done.stderr)
    for thing in ['certificate', 'https']:
        text = line(done, thing)
        assert text.startswith(status)
        assert f'{days - 1} days' in text
        assert ('SIGHUP' in text) == (status == 'warning')
    assert line(done, 'POST').startswith('ok ')


@pytest.mark.one_series
def test_certificate_that_can_not_be_used(check, tmp_path):
    path, key = make_certificate(tmp_path)
    subprocess.run(
        ['openssl', 'x509', '-in', path, '-signkey', key, '-days', '-1',
            '-out', path], check=True, capture_output=True)
    sections = {'ssl': {'certificate': path, 'privatekey': key}}
    failed(check(sections=sections), 'certificate', 'has expired', str(path))
    done = check(sections=sections, ssl=False)
    assert 'certificate:' not in done.stdout
    key.unlink()
    failed(check(sections=sections), 'certificate', f"'{key}' cannot be read")
    del sections['ssl']['certificate']
    failed(check(sections=sections), 'configuration', '[ssl] certificate')


def test_class(check):
    failed(check(**{'class': 'none.Bus'}), 'class', 'none.Bus')
    warned(check(**{'class': 'trytond.bus.LongPollingBus'}), 'class',
        'without the journal')
    warned(check(journal=True, **{'class': None}), 'class', 'install()')


@pytest.mark.skipif(
    not settings.has_chat(), reason="records have no chat in this series")
@pytest.mark.parametrize('check_access, words', [
        (None, 'is off'), (False, 'is off'), (True, 'is on')])
def test_access_to_chats(check, check_access, words):
    done = check(check_access=check_access)
    assert done.returncode == 0
    assert words in line(done, 'check_access')


def test_allow_subscribe_off(check):
    failed(check(allow_subscribe=False), 'allow_subscribe',
        '[bus] allow_subscribe is off', 'set it to True')


@pytest.mark.one_series
def test_open_files(check):
    limited = ['sh', '-c', 'ulimit -n 500 && exec "$@"', 'sh']
    warned(check(before=limited), 'open files', 'may open 500', '25100',
        'LimitNOFILE')
    done = check(before=limited, max_connections=300)
    assert line(done, 'open files').startswith('ok ')


def test_connections(check, postgresql):
    warned(
        check(sections={'database': {
                    'uri': postgresql.uri, 'maxconn': 100000}}),
        'connections', '[database] maxconn', '100000')


def test_sessions_without_an_index(
        check, postgresql, tryton_template, series):
    name = 'sessions'
    postgresql.create_database(name, tryton_template)
    try:
        if float(series) < 7:
            assert 'has an index' in line(check(name=name), 'sessions')
            return
        assert 'short enough' in line(check(name=name), 'sessions')
        postgresql.execute(
            "INSERT INTO ir_session (key, create_uid, create_date) "
            "SELECT number, 1, now() FROM generate_series(1, 6000) AS number",
            name)
        postgresql.execute('ANALYZE ir_session', name)
        warned(check(name=name), 'sessions', 'all of', 'about 6000 rows')
        done = check(name=name)
        statement = line(done, 'sessions').rpartition(': ')[2]
        # An index that is not complete, or is partial, does not help.
        postgresql.execute(
            f'{statement} WHERE create_uid > 1', name)
        warned(check(name=name), 'sessions', 'all of')
        postgresql.execute('DROP INDEX ir_session_check', name)
        postgresql.execute(statement, name)
        done = check(name=name)
        assert line(done, 'sessions').startswith('ok ')
        assert 'has an index' in line(done, 'sessions')
    finally:
        postgresql.drop_database(name)


def test_database_of_something_else(check):
    failed(check(name='postgres'), 'sessions', 'no table ir_session')


@pytest.mark.one_series
def test_wrong_port(check):
    uri = f'postgresql://postgres@127.0.0.1:{free_port()}'
    done = check(sections={'database': {'uri': uri}})
    failed(done, 'database', 'refused', '[database] uri')


def test_unknown_database(check):
    done = check(name='unknown')
    failed(done, 'database', "'unknown'", 'does not exist', 'name')


@pytest.mark.skipif(not find_pgbouncer(), reason="install pgbouncer")
@pytest.mark.parametrize('mode', ['session', 'transaction', 'statement'])
def test_pgbouncer(check, postgresql, mode):
    with PgBouncer(postgresql.port, mode) as pgbouncer:
        uri = f'postgresql://postgres@127.0.0.1:{pgbouncer.port}'
        done = check(sections={'database': {'uri': uri}})
    if mode == 'session':
        assert done.returncode == 0, done.stdout
    else:
        failed(done, 'LISTEN', 'PgBouncer', 'session mode')


def test_no_rights_for_the_journal(check, postgresql, database):
    postgresql.execute('CREATE ROLE limited LOGIN')
    try:
        postgresql.execute(
            'REVOKE CREATE ON SCHEMA public FROM PUBLIC', database)
        uri = postgresql.uri.replace('postgres@', 'limited@')
        done = check(sections={'database': {'uri': uri}}, journal=True)
        failed(done, 'journal', 'trytond-bus --journal-sql')
        done = check(sections={'database': {'uri': uri}})
        assert done.returncode == 0
    finally:
        postgresql.execute('DROP ROLE limited')


@pytest.mark.one_series
@pytest.mark.parametrize('status, words', [
        (200, 'not the bus'),
        (302, "redirects to '/elsewhere'"),
        (403, 'forbidden'),
        (404, 'where the proxy sends /<database>/bus'),
        (405, 'POST is not allowed'),
        (418, 'the bus never sends'),
        (502, 'start trytond-bus'),
        (503, 'out of service'),
        (504, 'proxy_read_timeout'),
        ])
def test_url_that_serves_something_else(check, status, words):
    with Front(status) as front:
        failed(check('--url', front.url), 'POST', f'{status}, ', words)


@pytest.mark.one_series
def test_server_without_subscribing(check, serve):
    with serve(allow_subscribe=False) as bus:
        failed(check('--url', bus.url), 'POST', '501', 'allow_subscribe')


@pytest.mark.one_series
def test_url_host_is_looked_at_without_an_url(check, serve):
    with serve() as bus:
        done = check(url_host=bus.url + '/')
    assert line(done, 'POST').startswith('ok ')


@pytest.mark.one_series
def test_url_host_without_its_last_slash(check):
    url = f'http://127.0.0.1:{free_port()}'
    text = line(check(url_host=url), 'url_host')
    assert text.startswith('warning ')
    assert f'[bus] url_host = {url} has no slash' in text
    assert 'url_host:' not in check(url_host=url + '/').stdout


@pytest.mark.one_series
def test_nothing_listens(check):
    url = f'http://127.0.0.1:{free_port()}'
    failed(check('--url', url), 'POST', 'refused')


@pytest.mark.one_series
def test_host_that_is_unknown(check):
    failed(
        check('--url', 'http://unknown.invalid'), 'POST', 'name of the host')


@pytest.mark.one_series
def test_certificate_that_is_not_trusted(check, tmp_path):
    try:
        certificate = make_certificate(tmp_path)
    except FileNotFoundError:
        pytest.skip("install openssl")
    with Front(401, certificate=certificate) as front:
        failed(check('--url', front.url), 'POST', 'certificate')
        url = front.url.replace('https', 'http')
        failed(check('--url', url), 'POST', 'https')


@pytest.mark.one_series
def test_https_where_there_is_http(check):
    with Front(401) as front:
        url = front.url.replace('http', 'https')
        failed(check('--url', url), 'POST', 'TLS', 'https')


def test_password_that_is_wrong(tmp_path, postgresql, database, trytond):
    config = write_config(tmp_path / 'trytond.conf', {
            'database': {'uri': postgresql.uri}})
    done = run(
        tmp_path, '-c', config, '-d', database, '--url', trytond.url,
        '--user', 'admin', password='wrong')
    failed(done, 'login', 'password is wrong')
    done = run(
        tmp_path, '-c', config, '-d', database, '--url', trytond.url,
        '--user', 'admin', password='two\nlines')
    assert done.returncode == 1
    assert 'TRYTONPASSFILE' in done.stderr


def test_trytond_is_not_where_the_login_goes(check, serve):
    with serve() as bus:
        done = check('--url', bus.url, '--user', 'admin')
    failed(done, 'login', 'no trytond answers', '--url')
    assert line(done, 'POST').startswith('ok ')


def test_trytond_that_tells_of_no_bus(
        check, postgresql, database, tmp_path, series):
    if float(series) < 7.8:
        pytest.skip("the login tells of the bus from trytond 7.8 on")
    with TrytondServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'allow_subscribe': False}}, [database]) as server:
        done = check('--url', server.url, '--user', 'admin')
    failed(done, 'bus host', 'allow_subscribe is off', 'trytond')


@pytest.mark.parametrize('trytond_sees, num_proxies, words', [
        ('192.0.2.7', 0, 'opened from 192.0.2.7'),
        ('127.0.0.1', 1, 'address of this machine'),
        ])
def test_session_of_another_address(
        check, serve, trytond, series, trytond_sees, num_proxies, words):
    if float(series) < 7.8:
        pytest.skip("sessions are bound to an address from trytond 7.8 on")
    with serve(num_proxies=num_proxies) as bus:
        with Front(
                bus.url, trytond.url,
                {'X-Forwarded-For': '192.0.2.8'},
                {'X-Forwarded-For': trytond_sees}) as front:
            done = check('--url', front.url, '--user', 'admin')
    failed(
        done, 'poll', '401', words, 'ir_session', '[bus] num_proxies',
        'X-Forwarded-For')


@pytest.mark.one_series
def test_credential_that_is_lost(check, serve, trytond):
    with serve() as bus:
        with Front(
                bus.url, trytond.url, {'Authorization': None}) as front:
            done = check('--url', front.url, '--user', 'admin')
    failed(done, 'poll', '401', 'Authorization')


def test_host_that_the_login_should_not_tell(
        check, serve, trytond, series):
    if float(series) < 7.8:
        pytest.skip("the login tells of the bus from trytond 7.8 on")
    host = trytond.url.removeprefix('http://')
    with serve() as bus:
        with Front(
                bus.url, trytond.url,
                trytond_headers={'Host': host}) as front:
            done = check('--url', front.url, '--user', 'admin')
    warned(done, 'bus host', trytond.url, 'pass on Host')


@pytest.mark.one_series
@pytest.mark.parametrize('body, words', [
        (b'{"message": null, "channel": null}', 'no message arrives'),
        (b'<html>', 'not the bus'),
        ])
def test_poll_without_the_message(check, trytond, body, words):
    def bus(headers):
        return (200, body) if headers['Authorization'] else (401, b'')

    with Front(bus, trytond.url) as front:
        done = check('--url', front.url, '--user', 'admin')
    failed(done, 'poll', words)


@pytest.mark.one_series
def test_origin(check, serve):
    with serve(sections={'web': {'cors': 'https://sao.example.com'}}) as bus:
        failed(
            check('--url', bus.url, '--origin', 'https://other.example.com'),
            'CORS', '403', '[web] cors')
        done = check('--url', bus.url, '--origin', bus.url)
        assert 'own origin' in line(done, 'CORS')
        done = check('--url', bus.url, '--origin', 'https://sao.example.com/')
        assert line(done, 'CORS').startswith('ok ')


@pytest.mark.one_series
def test_origin_at_trytond(check, trytond):
    origin = ['--origin', 'https://sao.example.com']
    failed(check('--url', trytond.url, *origin), 'CORS', '[web] cors')


def test_route_of_trytond_with_the_origin(
        check, postgresql, database, tmp_path, series):
    with TrytondServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'web': {'cors': 'https://sao.example.com'},
                }, [database]) as server:
        done = check(
            '--url', server.url, '--origin', 'https://sao.example.com')
    if float(series) < 8:
        warned(done, 'CORS', 'hides an error')
    else:
        failed(done, 'CORS', 'Access-Control-Allow-Credentials', 'missing')


@pytest.mark.one_series
def test_origin_that_the_answers_do_not_name(check):
    with Front(200) as front:
        done = check(
            '--url', front.url, '--origin', 'https://sao.example.com')
    failed(done, 'CORS', 'Access-Control-Allow-Origin', 'browser refuses')


def test_sqlite(tmp_path, sqlite_database):
    def check(**options):
        config = write_config(tmp_path / 'sqlite.conf', {
                'database': {
                    'uri': 'sqlite://', 'path': sqlite_database.parent},
                'bus': options})
        return config
    config = check()
    failed(
        run(tmp_path, '-c', config, '-d', 'tryton'), 'LISTEN',
        '[bus] journal = True')
    config = check(journal=True)
    done = run(tmp_path, '-c', config, '-d', 'tryton')
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert line(done, 'journal').startswith('ok ')
    failed(
        run(tmp_path, '-c', config, '-d', 'unknown'), 'database', 'unknown')


@pytest.fixture
def other_role(postgresql):
    postgresql.execute('CREATE ROLE stranger LOGIN')
    yield
    postgresql.execute('DROP ROLE stranger')


def test_privileges_matter_to_other_roles(check):
    assert 'no other role' in line(check(), 'privileges')


def test_privileges_of_every_role(check, postgresql, database, other_role):
    warned(check(), 'privileges', 'any role may connect', 'REVOKE CONNECT')
    postgresql.execute(
        f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC; '
        'GRANT CREATE ON SCHEMA public TO PUBLIC', database)
    warned(check(), 'privileges', "create objects in the schema 'public'")
    postgresql.execute('REVOKE CREATE ON SCHEMA public FROM PUBLIC', database)
    assert line(check(), 'privileges').startswith('ok ')
