"""A host that exceeds the limits of the examples for nginx."""
import socket
import ssl
from contextlib import ExitStack
from http.client import HTTPSConnection

import pytest
from support.nginx import Nginx
from support.postgresql import free_port

pytestmark = pytest.mark.one_series

SERVERS = {
    'same-origin.conf': ['127.0.0.1:8000', '127.0.0.1:8001'],
    'bus-host.conf': ['127.0.0.1:8001'],
    }
LIMIT = 5


@pytest.fixture(params=sorted(SERVERS))
def limited(request, nginx):
    "nginx with small limits, and nothing behind it: 502 is an answer"
    nowhere = f'127.0.0.1:{free_port()}'
    with Nginx(request.param, {
                **dict.fromkeys(SERVERS[request.param], nowhere),
                'connections 1000;': f'connections {LIMIT};',
                'rate=100r/s': 'rate=1r/m',
                'burst=1000': f'burst={2 * LIMIT}',
                }) as nginx:
        yield nginx


def context(nginx):
    return ssl.create_default_context(cafile=nginx.certificate)


def statuses(nginx, path, number, source='127.0.0.1'):
    "The statuses of requests from an address, one after the other"
    connection = HTTPSConnection(
        'localhost', nginx.port, context=context(nginx), timeout=30,
        source_address=(source, 0))
    found = []
    for _ in range(number):
        connection.request('POST', path, b'{}')
        with connection.getresponse() as response:
            response.read()
            found.append(response.status)
    connection.close()
    return found


def test_requests_of_an_address_are_limited(limited):
    found = statuses(limited, '/tryton/bus', 2 * LIMIT + 5)
    assert found == [502] * (2 * LIMIT + 1) + [429] * 4
    # Neither another address nor trytond is kept away.
    assert statuses(limited, '/tryton/bus', 1, '127.0.0.2') == [502]
    assert 429 not in statuses(limited, '/tryton/rpc/', 2 * LIMIT + 5)


def test_connections_of_an_address_are_limited(limited):
    with ExitStack() as stack:
        def begin(source):
            "Begin a request whose body does not arrive"
            connection = stack.enter_context(context(limited).wrap_socket(
                    socket.create_connection(
                        ('127.0.0.1', limited.port), 30, (source, 0)),
                    server_hostname='localhost'))
            # nginx asks for the body of a request that it has let in.
            connection.sendall(
                b'POST /tryton/bus HTTP/1.1\r\nHost: localhost\r\n'
                b'Expect: 100-continue\r\nContent-Length: 2\r\n\r\n')
            return connection.recv(100).split()[1]

        assert [begin('127.0.0.1') for _ in range(LIMIT)] == [b'100'] * LIMIT
        assert begin('127.0.0.1') == b'429'
        assert begin('127.0.0.2') == b'100'
