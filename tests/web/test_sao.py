"""The real web client in a real browser, with trytond-bus behind nginx."""
from contextlib import contextmanager

import pytest
from support import wait_until
from support.nginx import Nginx
from support.postgresql import free_port
from support.sao import log_in, make_root
from support.server import ROOT, BusServer, TrytondServer
from trytond.bus import notify
from trytond.transaction import Transaction

pytestmark = pytest.mark.usefixtures('nginx', 'sao', 'browser')
CUSTOM = ROOT / 'examples' / 'sao' / 'custom.js'
POLL = """
void fetch('%s/bus', {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: '{"channels": ["tab:%s"]}',
});
"""


def notify_user(page, database, title, body=None):
    user = page.evaluate('Sao.Session.current_session.user_id')
    with Transaction().start(database, 0):
        notify(title, body, user=user)


def polls(nginx, database):
    "The status of each poll that has ended"
    return [
        line.rpartition('/bus HTTP/2.0" ')[2].split()[0]
        for line in nginx.requests if f'POST /{database}/bus' in line]


@pytest.fixture
def sections(postgresql, database, sao, tmp_path):
    # The windows of an administrator's first login
    postgresql.execute(
        "UPDATE ir_module_config_wizard_item SET state = 'done'", database)
    root = make_root(sao, tmp_path / 'sao')
    return {
        'web': {'root': root, 'num_proxies': 1},
        'database': {'uri': postgresql.uri},
        }


@pytest.fixture
def serve_together(sections, database, tmp_path):
    "A context manager: nginx before trytond and trytond-bus, as one address"
    @contextmanager
    def serve():
        with TrytondServer(tmp_path, sections, [database]) as trytond, \
                BusServer(tmp_path, sections, [database]) as bus, \
                Nginx('same-origin.conf', {
                        '127.0.0.1:8000': f'127.0.0.1:{trytond.port}',
                        '127.0.0.1:8001': f'127.0.0.1:{bus.port}',
                        }) as nginx:
            yield trytond, bus, nginx
    return serve


def test_notification_is_shown_behind_nginx(
        serve_together, database, browser):
    with serve_together() as (trytond, bus, nginx):
        page = log_in(browser, nginx.url, database)
        notify_user(page, database, "Hello", "from trytond")
        page.wait('shown.length == 1')
        notify_user(page, database, "Good bye")
        page.wait('shown.length == 2')

        assert page.evaluate('shown') == [
            ["Hello", "from trytond"], ["Good bye", ""]]
        assert page.evaluate(
            "performance.getEntriesByType('navigation')[0].nextHopProtocol"
            ) == 'h2'
        assert set(polls(nginx, database)) == {'200'}
        assert '/bus' not in trytond.log


def test_polls_of_many_tabs_leave_room_for_requests(
        serve_together, database, browser):
    with serve_together() as (_, bus, nginx):
        page = log_in(browser, nginx.url, database)
        for number in range(8):
            page.evaluate(POLL % (database, number))
        # Of all of them, and of sao itself
        wait_until(lambda: bus.metric('polls_waiting') == 9)

        assert page.evaluate(
            'Sao.Session.server_version().then(version => version)')


@pytest.fixture
def serve_apart(sections, database, tmp_path):
    """A context manager: nginx before trytond, and another one before
    trytond-bus, which clients find by url_host"""
    @contextmanager
    def serve():
        port, bus_port = free_port(), free_port()
        sections['web']['cors'] = f'https://localhost:{port}'
        sections['bus'] = {'url_host': f'https://localhost:{bus_port}/'}
        with TrytondServer(tmp_path, sections, [database]) as trytond, \
                BusServer(tmp_path, sections, [database]) as bus, \
                Nginx('same-origin.conf', {
                        '127.0.0.1:8000': f'127.0.0.1:{trytond.port}',
                        }, port) as nginx, \
                Nginx('bus-host.conf', {
                        '127.0.0.1:8001': f'127.0.0.1:{bus.port}',
                        }, bus_port) as bus_nginx:
            yield nginx, bus_nginx
    return serve


def test_notification_is_shown_from_another_port_with_custom_js(
        sections, serve_apart, database, browser):
    (sections['web']['root'] / 'custom.js').symlink_to(CUSTOM)
    with serve_apart() as (nginx, bus_nginx):
        page = log_in(browser, nginx.url, database)
        notify_user(page, database, "Hello", "from trytond")
        page.wait('shown.length')

        assert page.evaluate('shown') == [["Hello", "from trytond"]]
        assert set(polls(bus_nginx, database)) == {'200'}
        assert not polls(nginx, database)


def test_stock_web_client_has_no_session_at_another_port(
        serve_apart, database, browser):
    with serve_apart() as (nginx, bus_nginx):
        log_in(browser, nginx.url, database)
        wait_until(lambda: len(polls(bus_nginx, database)) > 1)
        assert set(polls(bus_nginx, database)) == {'401'}
