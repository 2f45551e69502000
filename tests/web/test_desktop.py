"""The bus of the real desktop client, with trytond-bus behind nginx, and with
TLS of its own."""
import shutil

import pytest
from support import wait_until
from support.desktop import Desktop, Missing, fetch
from support.nginx import Nginx, make_certificate
from support.server import BusServer, TrytondServer
from trytond.bus import notify
from trytond.transaction import Transaction


@pytest.fixture(scope='session')
def package(series):
    "The directory of the desktop client of this series"
    if series < '7.8':
        pytest.skip("the client learns the address of the bus from 7.8 on")
    try:
        return fetch(series)
    except Missing as error:
        pytest.skip(f"no tryton {series}: {error}")


def notify_admin(postgresql, database, *args):
    (user,), = postgresql.execute(
        "SELECT id FROM res_user WHERE login = 'admin'", database)
    with Transaction().start(database, 0):
        notify(*args, user=int(user))


def test_notification_is_shown(
        postgresql, database, nginx, package, tmp_path):
    sections = {
        'web': {'num_proxies': 1},
        'database': {'uri': postgresql.uri},
        }
    with TrytondServer(tmp_path, sections, [database]) as trytond, \
            BusServer(tmp_path, sections, [database]) as bus, \
            Nginx('same-origin.conf', {
                    '127.0.0.1:8000': f'127.0.0.1:{trytond.port}',
                    '127.0.0.1:8001': f'127.0.0.1:{bus.port}',
                    }) as nginx, \
            Desktop(package, nginx.url, database, nginx.certificate) as client:
        for message in [["Hello", "from trytond", 2], ["Good bye", None, 1]]:
            notify_admin(postgresql, database, *message)
            assert client.read() == message
        assert '/bus' not in trytond.log


def test_notification_is_shown_over_tls_without_a_proxy(
        postgresql, database, package, tmp_path):
    if not shutil.which('openssl'):
        pytest.skip("install openssl")
    path, key = make_certificate(tmp_path)
    sections = {
        'database': {'uri': postgresql.uri},
        'ssl': {'certificate': path, 'privatekey': key},
        }
    with BusServer(tmp_path, sections, [database]) as bus:
        sections['bus'] = {'url_host': f'https://localhost:{bus.port}/'}
        with TrytondServer(tmp_path, sections, [database]) as trytond, \
                Desktop(package, trytond.url, database, path) as client:
            for message in [["Hello", "over TLS", 2], ["Good bye", None, 1]]:
                notify_admin(postgresql, database, *message)
                assert client.read() == message
            assert '/bus' not in trytond.log
            wait_until(lambda: bus.metric('delivered_total') == 2)
