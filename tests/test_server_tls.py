"""trytond-bus with TLS, from the section [ssl]."""
import functools
import os
import shutil
import signal
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.nginx import make_certificate
from support.server import BusServer, TrytondServer
from test_server import run, waiting
from trytond_fastbus._native import check_certificate

pytestmark = [
    pytest.mark.one_series,
    pytest.mark.skipif(
        not shutil.which('openssl'), reason="install openssl")]


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    "The paths of a certificate that this process trusts, and of its key"
    paths = make_certificate(tmp_path)
    monkeypatch.setenv('SSL_CERT_FILE', str(paths[0]))
    return paths


@pytest.fixture
def serve(postgresql, listening, tmp_path):
    "Return a bus server with these sections"
    def serve(sections, **options):
        server = BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'class': None, **options},
                **sections,
                }, [listening])
        server.url = f'https://localhost:{server.port}'
        return server
    return serve


def of(certificate):
    "The section [ssl] with these files"
    path, key = certificate
    return {'ssl': {'certificate': path, 'privatekey': key}}


def shown(server):
    "The certificate that a server presents now"
    return ssl.get_server_certificate(('localhost', server.port), timeout=20)


def speaks_plain(server):
    with socket.create_connection(('localhost', server.port)) as connection:
        connection.sendall(
            b'POST /x/bus HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}')
        return connection.recv(100).startswith(b'HTTP/1.0 415')


def test_message_arrives_and_certificate_is_read_anew_meanwhile(
        serve, listening, postgresql, certificate, tmp_path):
    sections = {'database': {'uri': postgresql.uri}}
    with TrytondServer(tmp_path, sections, [listening]) as trytond, \
            serve(of(certificate)) as server, \
            ThreadPoolExecutor() as executor:
        poller = TrytonClient(
            trytond.url, listening, timeout=60, bus=server.url)
        poll = executor.submit(poller.poll)
        waiting(server, 1)
        server.listened(listening)

        path, key = certificate
        old, old_key = shown(server), key.read_text()
        key.write_text('nonsense')
        server.signal(signal.SIGHUP)
        wait_until(lambda: 'keeps its certificate' in server.log)
        assert f"the private key '{key}'" in server.log
        assert shown(server) == old

        directory = tmp_path / 'new'
        directory.mkdir()
        for new, used in zip(
                make_certificate(directory), certificate, strict=True):
            os.replace(new, used)
        assert key.read_text() != old_key
        server.signal(signal.SIGHUP)
        wait_until(lambda: shown(server) != old)
        assert shown(server) == path.read_text()

        assert not poll.done()
        publish(listening, poller.channel, {'type': 'new'})
        assert poll.result()[1]['type'] == 'new'
        # A connection with the new certificate works, too.
        publish(listening, poller.channel, {'type': 'next'})
        assert poller.poll()[1]['type'] == 'next'


def test_certificate_and_key_may_be_one_file(serve, certificate):
    path, key = certificate
    path.write_text(path.read_text() + key.read_text())
    with serve({'ssl': {'certificate': path}}) as server:
        assert shown(server) in path.read_text()


def openssl(directory, *arguments):
    subprocess.run(
        ['openssl', *map(str, arguments)], cwd=directory, check=True,
        capture_output=True)


def make(directory, *kind):
    """Make a certificate with a key of a kind, and return the content of the
    files"""
    key, path = directory / 'made.key', directory / 'made.pem'
    openssl(
        directory, 'req', '-x509', '-newkey', *kind, '-nodes', '-keyout', key,
        '-out', path, '-subj', '/CN=localhost',
        '-addext', 'subjectAltName=DNS:localhost')
    return path.read_bytes(), key.read_bytes()


def make_of_version_1(directory):
    _, key = make(directory, 'rsa:2048')
    openssl(
        directory, 'req', '-new', '-key', 'made.key', '-subj',
        '/CN=localhost', '-out', 'request.pem')
    openssl(
        directory, 'x509', '-req', '-in', 'request.pem', '-signkey',
        'made.key', '-out', 'made.pem')
    return (directory / 'made.pem').read_bytes(), key


def make_p521(directory):
    "The parameters are before the key, as `openssl ecparam` writes them"
    openssl(
        directory, 'ecparam', '-name', 'secp521r1', '-genkey', '-out',
        'made.key')
    openssl(
        directory, 'req', '-x509', '-key', 'made.key', '-subj',
        '/CN=localhost', '-out', 'made.pem')
    return [
        (directory / name).read_bytes() for name in ['made.pem', 'made.key']]


def test_certificates_are_served_as_trytond_serves_them(
        serve, certificate, tmp_path):
    P521 = ['ec', '-pkeyopt', 'ec_paramgen_curve:secp521r1']
    mark = b'\xef\xbb\xbf'
    # Each is another, so that a server shows when it has read it.
    (marked, marked_key), (joined, joined_key), (lines, lines_key) = (
        make(tmp_path, 'rsa:2048') for _ in range(3))
    ed25519 = make(tmp_path, 'ed25519')
    with serve(of(certificate)) as server:
        for pem, key in [
                ed25519,
                make(tmp_path, *P521),
                make_p521(tmp_path),
                make_of_version_1(tmp_path),
                (mark + marked, mark + marked_key),
                # Two files were put together.
                (joined + mark + ed25519[0], joined_key),
                (lines.replace(b'\n', b'\r\n'), lines_key),
                ]:
            for path, content in zip(certificate, [pem, key], strict=True):
                path.write_bytes(content)
            server.signal(signal.SIGHUP)
            wait_until(functools.partial(is_shown, server, pem))
            assert 'keeps its certificate' not in server.log


def is_shown(server, pem):
    "Whether a server presents the first certificate of a file"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = 'localhost', server.port
    with socket.create_connection(address, 20) as connection, \
            context.wrap_socket(connection) as encrypted:
        return encrypted.getpeercert(binary_form=True) == decoded(pem)


def decoded(pem):
    return ssl.PEM_cert_to_DER_cert(
        pem.decode('utf-8-sig').partition('-----END')[0]
        + '-----END CERTIFICATE-----')


@pytest.mark.parametrize('kind, named', [
        (['rsa:1024'], "an RSA key of 1024 bits"),
        (['ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1'],
            "a key of the kind secp256k1"),
        (['ec', '-pkeyopt', 'ec_paramgen_curve:brainpoolP256r1'],
            "a key of the kind brainpoolP256r1"),
        (['ed448'], "a key of the kind Ed448"),
        ])
def test_kind_of_key_that_is_not_served_is_named(tmp_path, kind, named):
    make(tmp_path, *kind)
    path, key = tmp_path / 'made.pem', tmp_path / 'made.key'
    with pytest.raises(ValueError) as raised:
        check_certificate(path, key)
    assert f"the private key '{key}' cannot be used" in str(raised.value)
    assert f"the certificate '{path}' has {named}, and " in str(raised.value)


def test_file_that_is_not_pem_is_named_with_the_remedy(tmp_path):
    pem, _ = make(tmp_path, 'ed25519')
    path, key = tmp_path / 'made.pem', tmp_path / 'made.key'
    for content, said in [
            (pem.decode().encode('utf-16'), "is a text in UTF-16: save it"),
            (decoded(pem), "is not in PEM, but in DER or PKCS#12"),
            (b'-----BEGIN CERTIFICATE-----\nTk8=\n-----END CERTIFICATE-----',
                "unexpected ASN.1 DER tag"),
            ]:
        path.write_bytes(content)
        with pytest.raises(ValueError) as raised:
            check_certificate(path, key)
        assert f"the certificate '{path}'" in str(raised.value)
        assert said in str(raised.value)


def test_hangup_without_tls_ends_nothing(serve):
    with serve({}) as server:
        server.signal(signal.SIGHUP)
        wait_until(lambda: 'has no certificate to read again' in server.log)
        assert server.admin('/health/ready')[0] == 200


@pytest.mark.parametrize('value', ['off', 'delegated'])
def test_tls_may_be_left_to_a_proxy(serve, certificate, value):
    if value == 'off':
        server = serve(of(certificate), ssl=False)
    else:
        server = serve({'ssl': {'certificate': True}})
    with server:
        assert speaks_plain(server)


def test_unix_socket_speaks_no_tls(serve, certificate, tmp_path):
    path = tmp_path / 'bus.sock'
    server = serve(of(certificate), listen=f'unix:{path}')
    with server, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(
            b'POST /x/bus HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}')
        assert connection.recv(100).startswith(b'HTTP/1.0 415')


def test_certificate_that_can_not_be_used_is_named(
        postgresql, certificate, tmp_path):
    path, key = certificate
    other = tmp_path / 'other'
    other.mkdir()
    _, other_key = make_certificate(other)
    encrypted = tmp_path / 'encrypted.pem'
    subprocess.run(
        ['openssl', 'pkcs8', '-topk8', '-in', key, '-out', encrypted,
            '-passout', 'pass:secret'], check=True)
    missing = tmp_path / 'missing.pem'
    cut, damaged, unordered = (
        tmp_path / name for name in ['cut.pem', 'damaged.pem', 'order.pem'])
    text = path.read_text()
    cut.write_text(text[:text.index('-----END')])
    damaged.write_text(text.replace('M', '!', 1))
    unordered.write_text((other / path.name).read_text() + text)
    for options, bus, *words in [
            ({'certificate': missing, 'privatekey': key}, {},
                f"'{missing}' cannot be read"),
            ({'certificate': path, 'privatekey': other_key}, {},
                f"'{other_key}' does not belong to", f"'{path}'"),
            ({'certificate': path, 'privatekey': encrypted}, {},
                f"'{encrypted}' is encrypted"),
            ({'certificate': path}, {}, f"'{path}': the file has no line"),
            ({'certificate': cut, 'privatekey': key}, {},
                f"'{cut}': the file has no line '-----END CERTIFICATE-----'"),
            ({'certificate': damaged, 'privatekey': key}, {},
                f"'{damaged}': the text between", "is not base64"),
            ({'certificate': unordered, 'privatekey': key}, {},
                f"'{unordered}', but to a later one", "put that one first"),
            ({'privatekey': key}, {}, "[ssl] certificate"),
            ({}, {'ssl': True}, "[ssl] certificate"),
            ({'certificate': path}, {'ssl': 'perhaps'}, "[bus] ssl")]:
        failed = run(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'listen': 'localhost:0', **bus}, 'ssl': options})
        assert failed.returncode == 1, options
        assert failed.stderr.startswith('trytond-bus: error: ')
        for word in words:
            assert word in failed.stderr


@pytest.mark.parametrize('days, words', [
        (-1, ["ERROR trytond.bus clients refuse the certificate '{}'",
                "has expired: renew it"]),
        (5, ["WARNING trytond.bus the certificate '{}'"]),
        ])
def test_end_of_the_certificate_is_logged_at_the_start(
        postgresql, certificate, tmp_path, days, words):
    path, key = certificate
    old = tmp_path / 'old.pem'
    subprocess.run(
        ['openssl', 'x509', '-in', path, '-signkey', key, '-days', str(days),
            '-out', old], check=True, capture_output=True)
    with BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'ssl': {'certificate': old, 'privatekey': key},
                }, verbose=False) as server:
        for word in words:
            wait_until(lambda: word.format(old) in server.log)  # noqa: B023
