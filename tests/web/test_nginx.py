"""Requests that nginx passes on to trytond and trytond-bus, with the examples.
"""
import json
import ssl
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pytest
from support import wait_until
from support.nginx import Nginx
from support.server import BusServer, TrytondServer

pytestmark = pytest.mark.one_series

ORIGIN = 'https://tryton.example.com'
LOGIN = json.dumps({
        'id': 0, 'method': 'common.db.login',
        'params': ['admin', {'password': 'admin'}, 'en']}).encode()


@pytest.fixture(scope='module')
def servers(postgresql, listening, tmp_path_factory):
    "trytond and trytond-bus"
    directory = tmp_path_factory.mktemp('servers')
    sections = {
        'database': {'uri': postgresql.uri},
        'web': {'num_proxies': 1, 'cors': ORIGIN},
        }
    with TrytondServer(directory, sections, [listening]) as trytond, \
            BusServer(directory, sections, [listening]) as bus:
        yield trytond, bus


@pytest.fixture(scope='module')
def same_origin(nginx, servers):
    trytond, bus = servers
    with Nginx('same-origin.conf', {
                '127.0.0.1:8000': f'127.0.0.1:{trytond.port}',
                '127.0.0.1:8001': f'127.0.0.1:{bus.port}',
                }) as nginx:
        yield nginx


@pytest.fixture(scope='module')
def bus_host(nginx, servers):
    with Nginx('bus-host.conf', {
                '127.0.0.1:8001': f'127.0.0.1:{servers[1].port}',
                }) as nginx:
        yield nginx


@pytest.fixture
def rpc(series):
    "The path of trytond's requests"
    return '/rpc/' if series >= '8.0' else '/'


@pytest.fixture(params=['same_origin', 'bus_host'])
def either(request):
    return request.getfixturevalue(request.param)


def ask(nginx, path, data=b'{}', method='POST', **headers):
    "Return the status, the headers and the body of the answer"
    opener = build_opener(ProxyHandler({}), HTTPSHandler(
            context=ssl.create_default_context(cafile=nginx.certificate)))
    request = Request(
        nginx.url + path, data=data, method=method, headers={
            'Content-Type': 'application/json',
            **{name.replace('_', '-'): value
                for name, value in headers.items()}})
    try:
        with opener.open(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.mark.parametrize('path', ['/bus', '//bus'])
def test_polls_come_to_the_bus_server(path, either, servers, listening):
    _, bus = servers
    counted = 'requests_total{status="401"}'
    before = bus.metric(counted) or 0
    assert ask(either, f'/{listening}{path}')[0] == 401
    # It counts what it has written.
    wait_until(lambda: bus.metric(counted) == before + 1)


def test_other_requests_come_to_trytond(
        same_origin, servers, rpc, listening):
    assert ask(same_origin, f'/{listening}{rpc}', LOGIN)[0] == 200
    assert f'POST /{listening}{rpc} ' in servers[0].log


def test_host_of_the_bus_has_nothing_else(bus_host, listening):
    for path in ['/', '/rpc/', f'/{listening}/rpc/', f'/{listening}/bus/x']:
        assert ask(bus_host, path)[0] == 404, path


def test_client_can_not_choose_the_address_of_the_bus(
        same_origin, series, rpc, listening):
    if series < '7.8':
        pytest.skip("the login tells the address of the bus from 7.8 on")
    _, _, body = ask(
        same_origin, f'/{listening}{rpc}', LOGIN,
        X_Forwarded_Host='evil.example.com', X_Forwarded_Port='666',
        X_Forwarded_Prefix='/evil', X_Forwarded_Proto='http')
    assert json.loads(body)['result'][2] == f'{same_origin.url}/'


@pytest.mark.parametrize('origin, status, allowed', [
        (ORIGIN, 204, [ORIGIN]), ('https://evil.example.com', 403, None)])
def test_browser_gets_cors_headers_once(
        origin, status, allowed, bus_host, listening):
    answered, headers, _ = ask(
        bus_host, f'/{listening}/bus', None, 'OPTIONS', Origin=origin,
        Access_Control_Request_Method='POST',
        Access_Control_Request_Headers='content-type')
    assert answered == status
    assert headers.get_all('Access-Control-Allow-Origin') == allowed
    if allowed:
        assert headers.get_all('Access-Control-Allow-Credentials') == ['true']


def test_large_poll_is_refused(either, listening):
    assert ask(either, f'/{listening}/bus', b' ' * 70_000)[0] == 413
