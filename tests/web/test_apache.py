"""Requests that Apache httpd passes on to trytond and trytond-bus, with the
example."""
import base64
import json
import shutil
import ssl
import subprocess
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pytest
from support import wait_until
from support.nginx import make_certificate
from support.postgresql import free_port
from support.server import ROOT, BusServer, TrytondServer

APACHE = shutil.which('apache2', path='/usr/sbin:/usr/bin')
MODULES = '/usr/lib/apache2/modules'
MAIN = """
ServerRoot {directory}
PidFile {directory}/pid
ErrorLog {directory}/error.log
Mutex file:{directory} default
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 1
ThreadsPerChild 8
MaxRequestWorkers 8
MinSpareThreads 1
MaxSpareThreads 8
{modules}
Include {directory}/site.conf
"""


@pytest.fixture(scope='module')
def servers(postgresql, listening, tmp_path_factory):
    "trytond and trytond-bus"
    directory = tmp_path_factory.mktemp('servers')
    sections = {
        'database': {'uri': postgresql.uri},
        'web': {'num_proxies': 1},
        'bus': {'long_polling_timeout': 1},
        }
    with TrytondServer(directory, sections, [listening]) as trytond, \
            BusServer(directory, sections, [listening]) as bus:
        yield trytond, bus


@pytest.fixture(scope='module', params=['Off', 'On'])
def ask(servers, tmp_path_factory, request):
    "ask(path, data, **headers): the status of the answer, and its body"
    if not APACHE:
        pytest.skip("there is no Apache: install apache2-bin")
    trytond, bus = servers
    port = free_port()
    # Apache's children run as a user of their own.
    directory = tmp_path_factory.mktemp('apache')
    directory.chmod(0o777)
    certificate, key = make_certificate(directory)
    site = (ROOT / 'examples' / 'apache' / 'same-origin.conf').read_text()
    for text, replacement in [
            ('*:443', f'127.0.0.1:{port}'),
            ('    ServerName tryton.example.com',
                '    ServerName localhost\n'
                f'    ProxyPreserveHost {request.param}'),
            ('/etc/ssl/certs/tryton.example.com.pem', certificate),
            ('/etc/ssl/private/tryton.example.com.key', key),
            ('//127.0.0.1:8000/', f'//127.0.0.1:{trytond.port}/'),
            ('//127.0.0.1:8001/', f'//127.0.0.1:{bus.port}/')]:
        assert text in site, text
        site = site.replace(text, str(replacement))
    (directory / 'site.conf').write_text(site)
    (directory / 'apache.conf').write_text(MAIN.format(
            directory=directory, port=port, modules='\n'.join(
                f'LoadModule {name}_module {MODULES}/mod_{name}.so'
                for name in [
                    'mpm_event', 'authz_core', 'headers', 'http2', 'proxy',
                    'proxy_http', 'ssl'])))
    url = f'https://localhost:{port}'
    opener = build_opener(ProxyHandler({}), HTTPSHandler(
            context=ssl.create_default_context(cafile=certificate)))

    def ask(path, data, **headers):
        request = Request(url + path, json.dumps(data).encode(), {
                'Content-Type': 'application/json', 'Origin': url,
                **headers})
        try:
            with opener.open(request, timeout=60) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            with error:
                return error.code, None

    process = subprocess.Popen(
        [APACHE, '-DFOREGROUND', '-f', directory / 'apache.conf'],
        stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(opener, url))
        yield ask
    finally:
        process.terminate()
        process.wait()


def answers(opener, url):
    try:
        opener.open(url + '/none', timeout=60).close()
    except HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def test_page_polls_whatever_host_apache_passes_on(
        ask, servers, listening, series):
    _, bus = servers
    path = f'/{listening}/rpc/' if series >= '8.0' else f'/{listening}/'
    status, answer = ask(path, {
            'id': 0, 'method': 'common.db.login',
            'params': ['admin', {'password': 'admin'}, 'en']})
    assert status == 200
    user, token, *_ = answer['result']
    session = f'admin:{user}:{token}'
    counted = 'requests_total{status="200"}'
    before = bus.metric(counted) or 0

    for slashes in ['/', '//']:
        poll = f'/{listening}{slashes}bus', {'channels': ['client:1']}
        assert ask(*poll, Authorization=credential(session))[0] == 200
    # It counts what it has written.
    wait_until(lambda: bus.metric(counted) == before + 2)

    assert ask(
        *poll, Authorization=credential(session),
        Origin='https://other.example.com')[0] == 403


def credential(session):
    return 'Session ' + base64.b64encode(session.encode()).decode()
