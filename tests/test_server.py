"""trytond-bus beside a real trytond. Clients log in at trytond and poll
trytond-bus."""
import base64
import importlib.metadata
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.polls import Polls
from support.postgresql import free_port
from support.server import BusServer, TrytondServer, environment, write_config
from trytond.transaction import Transaction

EMPTY = {'message': None, 'channel': None}


@pytest.fixture(scope='module')
def database(listening):
    "The database of all tests. Each has its own clients."
    return listening


@pytest.fixture(scope='module')
def _trytond(postgresql, database, tmp_path_factory):
    "The trytond that makes the sessions"
    directory = tmp_path_factory.mktemp('trytond')
    with TrytondServer(directory, {
                'database': {'uri': postgresql.uri},
                'web': {'num_proxies': 1},
                }, [database]) as server:
        yield server


@pytest.fixture
def serve(postgresql, database, tmp_path):
    "Return a bus server of the database with these options"
    def serve(
            *arguments, sections=None, environ=None, inherited=None,
            **options):
        return BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {
                    'class': None, 'select_timeout': 1,
                    'long_polling_timeout': 60, **options},
                **(sections or {}),
                }, [database], arguments, environ, inherited)
    return serve


@pytest.fixture
def client(_trytond, database):
    "Return a client with a session of its own, which polls a bus server"
    def client(server):
        return TrytonClient(
            _trytond.url, database, timeout=60, bus=server.url)
    return client


def waiting(server, number):
    "Wait until this number of polls wait"
    wait_until(lambda: server.metric('polls_waiting') == number)


def status(client, body=b'{"channels": []}', path='/bus', **headers):
    "Return the status of a request at the bus server, and its headers"
    request = Request(
        client.bus_url + path, data=body, headers={
            name.replace('_', '-'): value
            for name, value in {**client._headers, **headers}.items()
            if value is not None})
    try:
        with client._opener.open(request, timeout=60) as response:
            return response.status, response.headers
    except HTTPError as error:
        error.close()
        return error.code, error.headers


def test_message_reaches_a_client_that_waits(serve, client, database):
    with serve() as server:
        poller = client(server)
        with ThreadPoolExecutor() as executor:
            poll = executor.submit(poller.poll)
            waiting(server, 1)
            server.listened(database)
            message = {'type': 'notification', 'title': "Hé", 'body': None}
            publish(database, poller.channel, message)
            channel, received = poll.result()

        assert channel == poller.channel
        assert received == message
        assert server.metric('published_total{database="%s"}' % database) == 1
        # It counts what it has written.
        wait_until(lambda: server.metric('delivered_total') == 1)
        assert server.metric('session_checks_total{result="valid"}') == 1


@pytest.mark.one_series
def test_messages_of_a_client_come_in_order(serve, client, database):
    with serve() as server:
        poller = client(server)
        server.listened(database)
        messages = [{'number': number} for number in range(20)]
        publish(database, poller.channel, *messages)
        publish(database, poller.channel, {'large': 'é' * 100_000})

        received = [poller.poll()[1] for _ in range(21)]
        assert [message.get('number') for message in received] == [
            *range(20), None]
        assert received[-1]['large'] == 'é' * 100_000


@pytest.mark.one_series
def test_notification_of_a_user_is_answered_on_the_channel_of_the_client(
        serve, client, database):
    with serve() as server:
        poller = client(server)
        server.listened(database)
        publish(database, f'user:{poller.user_id}', {
                'type': 'notification', 'title': "T", 'body': None})

        assert poller.poll()[0] == poller.channel


@pytest.mark.one_series
def test_poll_without_a_message_is_answered_empty(serve, client):
    with serve(long_polling_timeout=1) as server:
        assert client(server).poll() == (None, None)


def test_session_that_is_none_is_refused(serve, client):
    with serve() as server:
        poller = client(server)
        poller._headers['Authorization'] = 'Session YWRtaW46MTp3cm9uZw=='

        code, headers = status(poller)
        assert code == 401
        assert headers['WWW-Authenticate']
        code, headers = status(poller, Origin=server.url)
        assert code == 401
        assert not headers['WWW-Authenticate']
        assert headers['Access-Control-Allow-Origin'] == server.url


def test_disconnected_stranger_leaves_no_check(
        serve, client, database, postgresql):
    def send(name):
        session = base64.b64encode(f'admin:1:{name}'.encode()).decode()
        stranger = socket.create_connection(('127.0.0.1', server.port), 30)
        stranger.sendall((
                f'POST /{database}/bus HTTP/1.1\r\nHost: bus\r\n'
                f'Authorization: Session {session}\r\n'
                'Content-Type: application/json\r\nContent-Length: 2\r\n\r\n'
                '{}').encode())
        return stranger

    with serve(session_threads=1, long_polling_timeout=1) as server:
        poller = client(server)
        tasks = server.metric('tasks')
        with Transaction().start(database, 0) as transaction:
            transaction.connection.cursor().execute('LOCK TABLE ir_session')
            first = send('first')
            wait_until(lambda: postgresql.execute(
                    "SELECT 1 FROM pg_locks WHERE NOT granted "
                    "AND relation = 'ir_session'::regclass", database))
            strangers = [send(number) for number in range(50)]
            wait_until(lambda: server.metric('connections') == 51)
            for stranger in strangers:
                stranger.close()
            wait_until(lambda: server.metric('connections') == 1)
            wait_until(lambda: server.metric('tasks') <= tasks + 2)

        assert b' 401 ' in first.recv(1000)
        first.close()
        # The message is after them.
        assert status(poller)[0] == 200
        assert server.metric('session_checks_total{result="invalid"}') == 1


def test_unknown_database_is_not_found_at_once(serve, client):
    with serve() as server:
        poller = client(server)
        poller.bus_url = server.url + '/unknown'
        started = time.monotonic()

        assert status(poller)[0] == 404
        assert time.monotonic() - started < 25


def test_database_that_is_made_later_is_found(
        serve, client, postgresql, database, tryton_template):
    with serve() as server:
        poller = client(server)
        new = database + '_new'
        poller.bus_url = f'{server.url}/{new}'
        assert status(poller)[0] == 404
        postgresql.create_database(new, tryton_template)
        try:
            # There is no such session, so the answer is 401 once the database
            # is known.
            wait_until(lambda: status(poller)[0] == 401)
        finally:
            server.kill()
            postgresql.drop_database(new)


def test_logout_takes_effect_once_the_session_is_not_remembered(
        serve, client, database):
    with serve(session_cache=1, long_polling_timeout=1) as server:
        poller = client(server)
        assert status(poller)[0] == 200
        poller.rpc('common.db.logout')

        wait_until(lambda: status(poller)[0] == 401)


def test_logout_ends_the_poll_that_waits(serve, client, database):
    with serve(session_cache=1) as server:
        poller, other = client(server), client(server)
        with ThreadPoolExecutor() as executor:
            polls = [executor.submit(status, one) for one in [poller, other]]
            waiting(server, 2)
            poller.rpc('common.db.logout')

            assert polls[0].result()[0] == 401
            # The other poll still gets its message.
            waiting(server, 1)
            publish(database, f'user:{other.user_id}', {'type': 'x'})
            assert polls[1].result()[0] == 200


def test_database_that_takes_no_connection_holds_up_no_other(
        serve, client, database, postgresql, tryton_template):
    away = database + '_away'
    postgresql.create_database(away, tryton_template)
    postgresql.execute(f'ALTER DATABASE {away} ALLOW_CONNECTIONS false')
    try:
        with serve(hold_time=50, long_polling_timeout=1,
                session_threads=1) as server:
            poller = client(server)
            with ThreadPoolExecutor() as executor:
                strangers = []
                for _ in range(8):
                    stranger = client(server)
                    stranger.bus_url = f'{server.url}/{away}'
                    strangers.append(executor.submit(status, stranger))
                wait_until(lambda: server.metric(
                        'session_checks_total{result="failed"}') >= 8, 30)
                assert status(poller)[0] == 200
                # The polls wait for their database, and are answered when it
                # is back.
                assert not any(poll.done() for poll in strangers)
                postgresql.execute(
                    f'ALTER DATABASE {away} ALLOW_CONNECTIONS true')
                for poll in strangers:
                    assert poll.result()[0] == 401
    finally:
        postgresql.drop_database(away)


def test_no_module_is_loaded_to_check_sessions(serve, client):
    with serve(long_polling_timeout=1) as server:
        assert status(client(server))[0] == 200
        assert 'init pool' not in server.log
        assert 'loading' not in server.log


def test_poll_is_bound_to_the_address_before_the_proxy(
        serve, client, series):
    if float(series) < 7.8:
        pytest.skip("sessions are bound to an address from trytond 7.8 on")
    with serve(num_proxies=1, long_polling_timeout=1) as server:
        poller = client(server)
        poller._headers['X-Forwarded-For'] = '192.0.2.7'
        poller.user_id, poller.token, *_ = poller.login('admin')
        session = f'admin:{poller.user_id}:{poller.token}'
        poller._headers['Authorization'] = (
            'Session ' + base64.b64encode(session.encode()).decode())

        assert status(poller)[0] == 200
        for address in ['192.0.2.8', 'nonsense']:
            assert status(poller, X_Forwarded_For=address)[0] == 401


def test_allow_subscribe_off_tells_clients_to_stop(serve, client):
    with serve(allow_subscribe=False) as server:
        assert status(client(server))[0] == 501
        # The server serves before it logs that.
        wait_until(lambda: 'allow_subscribe' in server.log)


@pytest.mark.one_series
@pytest.mark.parametrize('verbose', [False, True])
def test_start_and_end_are_a_line_each(
        database, postgresql, tmp_path, verbose):
    away = [f'away{number}' for number in range(5)]
    with BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'class': None, 'max_polls': 5},
                }, [database, *away], verbose=verbose) as server:
        server.listened(database)
        wait_until(lambda: f"'{away[0]}'" in server.log, 60)
        assert server.terminate() == 0
    start, *lines, end = server.log.splitlines()
    assert ' INFO trytond.bus.server bus server ' in start
    for part in [
            importlib.metadata.version('trytond-fastbus'),
            importlib.metadata.version('trytond'),
            f'listens on 127.0.0.1:{server.port}, '
            f'127.0.0.1:{server.admin_port}; databases {database}, away0, ',
            'away3 and 1 more, others', 'no journal',
            'files, 5 polls, 25000 connections']:
        assert part in start, part
    assert 'bus server has ended, after ' in end
    # The bus logs that a database cannot be reached, once and not for each
    # attempt.
    assert not [line for line in lines if 'psycopg' in line], lines


def test_cors_lets_the_origins_of_the_configuration_poll(serve, client):
    sections = {'web': {'cors': 'https://sao.example.com'}}
    with serve(sections=sections, long_polling_timeout=1) as server:
        poller = client(server)
        code, headers = status(poller, Origin='https://sao.example.com')
        assert code == 200
        assert headers['Access-Control-Allow-Credentials'] == 'true'
        assert status(poller, Origin='https://other.example.com')[0] == 403


def test_polls_survive_a_restart_of_postgresql(
        serve, client, database, postgresql):
    with serve(session_polls=1000) as server:
        poller = client(server)
        channels = [f'client:{number}' for number in range(1000)]
        with Polls(server.port, database, poller._headers, channels) as polls:
            waiting(server, 1000)
            server.listened(database)
            postgresql.restart()
            gaps = 'gaps_total{database="%s"}' % database
            wait_until(lambda: server.metric(gaps))
            server.listened(database)
            polls.look()
            assert polls.waiting == 1000

            publish(database, f'user:{poller.user_id}', {'type': 'all'})
            polls.wait(1000)
            assert not polls.failures
            assert {answer[1] for answer in polls.answers} == {200}
            assert {answer[2]['message']['type']
                for answer in polls.answers} == {'all'}


def test_session_that_can_not_be_checked_is_answered_without_an_error(
        serve, client, postgresql):
    with serve(hold_time=2, session_cache=0) as server:
        poller = client(server)
        postgresql.stop('immediate')
        try:
            assert poller.poll() == (None, None)
        finally:
            postgresql.start()


@pytest.mark.one_series
def test_drain_answers_each_poll(serve, client, database):
    with serve(drain=2, session_polls=1000) as server:
        headers = client(server)._headers
        channels = [f'client:{number}' for number in range(1000)]
        with Polls(server.port, database, headers, channels) as polls:
            waiting(server, 1000)
            server.signal(signal.SIGTERM)
            wait_until(
                lambda: server.admin('/health/ready')[0] == 503)
            polls.wait(1000)
            assert not polls.failures
            for _, code, answer, head in polls.answers:
                assert code == 200
                assert answer == EMPTY
                assert 'connection: close' in head
        assert server.process.wait(60) == 0


@pytest.mark.one_series
def test_interrupt_ends_the_server_as_well(serve):
    with serve(drain=0) as server:
        server.signal(signal.SIGINT)
        assert server.process.wait(60) == 0


@pytest.mark.one_series
def test_pid_file_is_there_while_the_server_is(serve, tmp_path):
    path = tmp_path / 'pid'
    with serve('--pidfile', str(path)) as server:
        assert int(path.read_text()) == server.process.pid
        server.terminate()
    assert not path.exists()


@pytest.mark.one_series
def test_unix_socket_is_served(serve, client, tmp_path):
    path = tmp_path / 'bus.sock'
    with serve(listen=f'unix:{path}'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(
                b'POST /x/bus HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}')
            assert connection.recv(100).startswith(b'HTTP/1.0 415')


@pytest.mark.one_series
def test_service_manager_is_told(serve, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / 'notify'))
        manager.settimeout(60)
        with serve(environ={'NOTIFY_SOCKET': str(tmp_path / 'notify')}
                ) as server:
            assert manager.recv(100).strip() == b'READY=1'
            server.signal(signal.SIGTERM)
            assert manager.recv(100).strip() == b'STOPPING=1'


@pytest.mark.one_series
def test_service_manager_that_is_not_there_stops_nothing(
        serve, client, tmp_path):
    with serve(environ={'NOTIFY_SOCKET': str(tmp_path / 'none')}) as server:
        # The server serves before it logs that.
        wait_until(lambda: server.log.count(
                'WARNING trytond.bus the state of the server') == 1)
        with ThreadPoolExecutor() as executor:
            poll = executor.submit(status, client(server))
            waiting(server, 1)
            assert server.terminate() == 0
            assert poll.result()[0] == 200
        assert server.log.count('over NOTIFY_SOCKET: No such file') == 2


@pytest.mark.one_series
def test_upgrade_by_an_inherited_socket_fails_no_request(
        serve, client, database):
    with socket.create_server(('127.0.0.1', 0), backlog=1000) as listener:
        def inheriting():
            server = serve(inherited=listener, drain=1, session_polls=1000)
            server.port = listener.getsockname()[1]
            server.url = f'http://127.0.0.1:{server.port}'
            return server

        with inheriting() as old:
            poller = client(old)
            channels = [f'client:{number}' for number in range(200)]
            with Polls(
                    old.port, database, poller._headers, channels) as polls:
                waiting(old, 200)
                with inheriting() as new:
                    old.signal(signal.SIGTERM)
                    while old.process.poll() is None:
                        answered = len(polls.answers)
                        polls.look(.05)
                        for channel, *_ in polls.answers[answered:]:
                            polls.poll(channel)
                    assert old.process.returncode == 0
                    new.listened(database)
                    waiting(new, polls.waiting)
                    answered = len(polls.answers)
                    assert polls.waiting == 200
                    publish(
                        database, f'user:{poller.user_id}', {'type': 'all'})
                    polls.wait(answered + 200)
                    assert not polls.failures
                    assert {code for _, code, *_ in polls.answers} == {200}


@pytest.mark.one_series
def test_servers_beside_each_other_on_one_port(serve, client, database):
    port = free_port()

    def beside():
        server = serve(listen=f'127.0.0.1:{port}', reuse_port=True,
            session_polls=1000)
        server.port, server.url = port, f'http://127.0.0.1:{port}'
        return server

    def all_waiting():
        polls.look(.01)
        return sum(
            server.metric('polls_waiting') or 0 for server in servers) == 100

    def come_back():
        # Real clients poll again, after an answer or without one.
        while polls.answers or polls.failures:
            done = polls.answers + [(channel,) for channel in polls.failures]
            polls.answers.clear()
            polls.failures.clear()
            for channel, *_ in done:
                polls.poll(channel)

    with beside() as first, beside() as second:
        servers = [first, second]
        poller = client(first)
        channels = [f'client:{number}' for number in range(100)]
        with Polls(port, database, poller._headers, channels) as polls:
            wait_until(all_waiting)
            assert all(
                server.metric('polls_waiting') > 10 for server in servers)
            first.signal(signal.SIGTERM)
            while first.process.poll() is None:
                polls.look(.05)
                assert {status for _, status, *_ in polls.answers} <= {200}
                come_back()
            servers.remove(first)
            polls.look(.1)
            come_back()
            wait_until(all_waiting)
            publish(database, f'user:{poller.user_id}', {'type': 'all'})
            polls.wait(100)
            assert not polls.failures


@pytest.mark.one_series
@pytest.mark.parametrize('options, named', [
        ({'listen': 'localhost'}, "'localhost' has no port"),
        ({'listen': '192.0.2.1:8001'}, "192.0.2.1:8001"),
        ({'listen': ''}, "listen"),
        ({'max_polls': 'many'}, "max_polls"),
        ({'max_polls': 0}, "max_polls"),
        ({'header_size': 1}, "header_size"),
        ({'allow_subscribe': 'perhaps'}, "allow_subscribe"),
        ])
def test_configuration_that_can_not_be_used_is_named(
        tmp_path, postgresql, options, named):
    failed = run(
        tmp_path, {'database': {'uri': postgresql.uri}, 'bus': options})
    assert failed.returncode == 1
    assert failed.stderr.startswith('trytond-bus: error: ')
    assert named in failed.stderr


def test_backend_without_channels_is_refused(tmp_path):
    failed = run(tmp_path, {'database': {'uri': 'sqlite://'}})
    assert failed.returncode == 1
    assert 'PostgreSQL' in failed.stderr


@pytest.mark.one_series
def test_versions_are_told(tmp_path):
    done = run(tmp_path, {}, '--version')
    assert done.returncode == 0
    assert done.stdout.startswith('trytond-fastbus ')


def run(directory, sections, *arguments):
    config = write_config(directory / 'trytond.conf', sections)
    return subprocess.run(
        [Path(sys.executable).parent / 'trytond-bus', '-c', config,
            *arguments],
        env=environment(), capture_output=True, text=True, timeout=60)
