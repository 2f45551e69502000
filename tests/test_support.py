"""The faults that other tests inject are real."""
import socket
import subprocess

import pytest
from support import wait_until
from support.proxy import Proxy

pytestmark = pytest.mark.one_series


@pytest.fixture
def proxy(postgresql):
    with Proxy(postgresql.port) as proxy:
        yield proxy


def query(postgresql, proxy, timeout=10):
    return subprocess.run(
        [postgresql.binaries / 'psql', '-XAqtc', 'SELECT 1',
            f'postgresql://postgres@127.0.0.1:{proxy.port}/postgres'],
        text=True, capture_output=True, timeout=timeout).stdout


def test_proxy_forwards(postgresql, proxy):
    assert query(postgresql, proxy) == '1\n'


def test_frozen_proxy_answers_nothing_until_thawed(postgresql, proxy):
    proxy.freeze()

    with pytest.raises(subprocess.TimeoutExpired):
        query(postgresql, proxy, timeout=1)
    assert proxy.connections

    proxy.thaw()
    assert query(postgresql, proxy) == '1\n'


@pytest.mark.parametrize('frozen', [False, True])
def test_cut_connection_is_reset(proxy, frozen):
    if frozen:
        proxy.freeze()
    with socket.create_connection(('127.0.0.1', proxy.port)) as connection:
        wait_until(lambda: proxy.connections == 1)

        assert proxy.cut() == 1

        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_restart_ends_connections_and_keeps_databases(postgresql, proxy):
    with socket.create_connection(
            ('127.0.0.1', postgresql.port)) as connection:
        postgresql.restart()

        assert connection.recv(1) == b''
    assert query(postgresql, proxy) == '1\n'
