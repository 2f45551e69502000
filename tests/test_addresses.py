"""A session is valid for one address. These tests say which texts are the same
address."""
import base64
import datetime as dt
import http.client
import json
import socket
import uuid
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.bus import publish
from support.postgresql import free_port
from support.server import BusServer
from trytond.transaction import Transaction
from trytond_fastbus import addresses


def test_addresses_are_compared_not_texts():
    for opened, address, is_local, expected in [
            ('192.0.2.1', '192.0.2.1', False, True),
            ('::ffff:192.0.2.1', '192.0.2.1', False, True),
            ('::ffff:c000:201', '192.0.2.1', False, True),
            ('2001:db8::7', '2001:DB8:0:0::7', False, True),
            ('fe80::1%eth0', 'fe80::1', False, True),
            ('fe80::1', 'fe80::1%2', False, True),
            ('fe80::1%eth0', 'fe80::2%eth0', False, False),
            ('192.0.2.1', '192.0.2.2', False, False),
            ('192.0.2.1', None, False, False),
            (None, '192.0.2.1', False, False),
            (None, None, False, True),
            ('::1', '127.0.0.1', True, True),
            (None, '127.0.0.1', True, True),
            ('::ffff:127.0.0.1', None, True, True),
            ('127.0.0.1', '192.0.2.1', True, True),
            ('192.0.2.1', '127.0.0.1', True, False),
            # A proxy has added it.
            ('::1', '127.0.0.1', False, False),
            ('127.0.0.1', '127.0.0.2', False, False),
            ]:
        case = opened, address, is_local
        assert addresses.is_same(*case) == expected, case
        assert not expected or any(
            addresses.is_same(candidate, opened, False)
            for candidate in addresses.candidates(address, is_local)), case

    for nonsense in ['ÿ', 'unknown', '192.0.2.1:80', '192.0.2.007', '"']:
        with pytest.raises(ValueError):
            addresses.is_same('192.0.2.1', nonsense, False)
        with pytest.raises(ValueError):
            addresses.candidates(nonsense, True)


@pytest.fixture
def ask(listening, series):
    """ask(socket, opened, *forwarded): the status of a poll with a new session
    that was opened from an address"""
    if float(series) < 7.8:
        pytest.skip("sessions are bound to an address from trytond 7.8 on")

    def ask(connected, opened, *forwarded):
        key = uuid.uuid4().hex
        with Transaction().start(listening, 0) as transaction:
            transaction.connection.cursor().execute(
                'INSERT INTO ir_session '
                '(key, create_uid, create_date, ip_address) '
                'VALUES (%s, 1, %s, %s)', (
                    key, dt.datetime.now(),
                    # As trytond writes it
                    opened and str(ip_address(opened))))
        session = base64.b64encode(f'admin:1:{key}'.encode()).decode()
        body = json.dumps({'channels': ['ready']})
        connection = http.client.HTTPConnection('unused')
        connection.sock = connected
        connection.putrequest('POST', f'/{listening}/bus')
        for name, value in [
                ('Content-Type', 'application/json'),
                ('Authorization', f'Session {session}'),
                ('Content-Length', str(len(body))),
                ]:
            connection.putheader(name, value)
        for value in forwarded:
            connection.putheader('X-Forwarded-For', value)
        connection.endheaders(body.encode())
        try:
            return connection.getresponse().status
        finally:
            connection.close()
    return ask


@pytest.fixture
def serve(listening, postgresql, tmp_path):
    """A function: a bus server that listens there, with a message in the
    channel 'ready'"""
    @contextmanager
    def serve(listen, inherited=None, **options):
        with BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'class': None, 'listen': listen, **options},
                }, [listening], inherited=inherited) as server:
            server.listened(listening)
            publish(listening, 'ready', {})
            yield server
    return serve


def over_unix(path):
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(60)
    connected.connect(str(path))
    return connected


def over_tcp(port, host='127.0.0.1', **options):
    return socket.create_connection((host, port), 60, **options)


def test_client_of_this_host_is_one_by_any_way(serve, ask, tmp_path):
    path, port = tmp_path / 'bus.socket', free_port()
    with serve(f'*:{port},unix:{path}'):
        for opened in ['127.0.0.1', '::1', '::ffff:127.0.0.1', None]:
            assert ask(over_tcp(port), opened) == 200
            assert ask(over_tcp(port, '::1'), opened) == 200
            assert ask(over_unix(path), opened) == 200
            # A proxy that is not counted, by trytond neither
            assert ask(over_tcp(port), opened, '192.0.2.1') == 200
            assert ask(over_unix(path), opened, '192.0.2.1') == 200

        assert ask(over_tcp(port), '192.0.2.1') == 401
        assert ask(over_tcp(port), '192.0.2.1', '192.0.2.1') == 401
        assert ask(over_unix(path), '192.0.2.1', '192.0.2.1') == 200


def test_forwarded_address_is_that_of_the_last_proxy_or_none(
        serve, ask, tmp_path):
    path, port = tmp_path / 'bus.socket', free_port()
    listen = f'127.0.0.1:{port},unix:{path}'
    with serve(listen, num_proxies=1) as server:
        for opened, forwarded, expected in [
                ('192.0.2.1', ['192.0.2.1'], 200),
                ('::ffff:192.0.2.1', ['192.0.2.1'], 200),
                ('192.0.2.1', ['::ffff:192.0.2.1'], 200),
                ('192.0.2.1', ['"192.0.2.1"'], 200),
                ('192.0.2.1', ['192.0.2.1, '], 200),
                ('192.0.2.1', [b'\xff, 192.0.2.1'], 200),
                ('192.0.2.1', ['192.0.2.2', '192.0.2.1'], 200),
                ('192.0.2.1', ['192.0.2.1, 192.0.2.2'], 401),
                ('127.0.0.1', ['127.0.0.2'], 401),
                ('127.0.0.1', ['::1'], 401),
                # Neither the proxy nor a unix socket gives an address.
                *[(opened, [garbage], 401)
                    for opened in ['127.0.0.1', None, '192.0.2.1']
                    for garbage in [
                        b'\xff', b'192.0.2.1, \xff', 'unknown', '"']],
                ('127.0.0.1', [], 200),
                ('127.0.0.1', [' '], 200),
                ]:
            found = {ask(over_tcp(port), opened, *forwarded)}
            # Without a proxy the address of a client is unknown.
            if forwarded:
                found.add(ask(over_unix(path), opened, *forwarded))
            assert found == {expected}, (opened, forwarded)
        assert "is no address: check X-Forwarded-For" in server.log


@pytest.fixture
def listener():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        yield listener


@contextmanager
def connections(listener, number):
    "Connections that have each got an answer"
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                socket.create_connection(listener.getsockname(), 60))
            for _ in range(number)]
        for client in clients:
            client.sendall(b'POST / HTTP/1.1\r\nHost: x\r\n\r\n')
        for client in clients:
            assert client.recv(1000)
        yield clients


@pytest.mark.parametrize('seconds', [0, 123])
def test_clients_of_a_socket_of_systemd_are_probed(serve, listener, seconds):
    with (serve('unused:1', listener, keep_alive=seconds),
            connections(listener, 1) as [client]):
        assert keep_alive(listener, client) == (
            pytest.approx(seconds, abs=60) if seconds else None)


def test_clients_that_get_a_message_at_once_are_not_probed_at_once(
        serve, listener):
    with (serve('unused:1', listener, keep_alive=1000),
            connections(listener, 20) as clients):
        probed = [keep_alive(listener, client) for client in clients]
        assert len({round(seconds) for seconds in probed}) > 10, probed
        assert max(probed) <= 1000


def test_probes_that_are_lost_do_not_end_a_poll(serve, listener):
    with serve('unused:1', listener, keep_alive=60):
        times, interval = (
            listener.getsockopt(socket.IPPROTO_TCP, option)
            for option in [socket.TCP_KEEPCNT, socket.TCP_KEEPINTVL])
        # The default of long_polling_timeout, in seconds
        assert times * interval > 300


def keep_alive(listener, client):
    "Seconds until the kernel probes a connection, or None if it does not"
    ports = [
        '%04X' % socket.getsockname()[1] for socket in [listener, client]]
    # A file is not read at once, so a line may come twice.
    line, *_ = (
        line for line in Path('/proc/net/tcp').read_text().splitlines()
        if [end.rpartition(':')[2] for end in line.split()[1:3]] == ports)
    kind, ticks = line.split()[5].split(':')
    return int(ticks, 16) / 100 if kind == '02' else None
