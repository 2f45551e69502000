"""nginx with one of the examples, on this machine's ports."""
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from . import wait_until
from .postgresql import free_port
from .server import ROOT

EXAMPLES = ROOT / 'examples' / 'nginx'
MAIN = """
{user}
daemon off;
pid {directory}/pid;
error_log stderr;
events {{
    worker_connections 512;
}}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/body;
    fastcgi_temp_path {directory}/fastcgi;
    proxy_temp_path {directory}/proxy;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    include {directory}/site.conf;
}}
"""


def find_nginx():
    "Return the path of nginx, which is not on every user's PATH, or None"
    path = os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin'])
    return shutil.which('nginx', path=path)


def make_certificate(directory, days=30):
    """Make a self-signed certificate of localhost; return its path and its
    key's"""
    certificate, key = directory / 'certificate.pem', directory / 'key.pem'
    subprocess.run(
        ['openssl', 'req', '-x509', '-newkey', 'ec',
            '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
            '-days', str(days), '-subj', '/CN=localhost',
            '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
            '-keyout', key, '-out', certificate],
        check=True, capture_output=True)
    return certificate, key


class Nginx:
    """nginx with an example, as a context manager.

    addresses is {address in the example: its replacement}, besides its name,
    its certificate and its port.
    """

    def __init__(self, example, addresses=(), port=None):
        self.port = port or free_port()
        self.url = f'https://localhost:{self.port}'
        self.directory = Path(tempfile.mkdtemp(prefix='nginx-'))
        self.certificate, key = make_certificate(self.directory)
        site = (EXAMPLES / example).read_text()
        listen = '443' if 'listen 443 ' in site else '8443'
        for text, replacement in {
                f'    listen {listen} ssl':
                f'    listen 127.0.0.1:{self.port} ssl',
                'server_name tryton.example.com': 'server_name localhost',
                '/etc/ssl/certs/tryton.example.com.pem': self.certificate,
                '/etc/ssl/private/tryton.example.com.key': key,
                **dict(addresses)}.items():
            assert text in site, text
            site = site.replace(text, str(replacement))
        (self.directory / 'site.conf').write_text(site)
        self._config = self.directory / 'nginx.conf'
        self._config.write_text(MAIN.format(
                directory=self.directory,
                user='user root;' if os.geteuid() == 0 else ''))
        self._process = None

    @property
    def _command(self):
        return [
            find_nginx(), '-p', self.directory, '-e', 'stderr',
            '-c', self._config]

    def check(self):
        "Return the output of nginx -t, which includes warnings"
        try:
            return subprocess.run(
                [*self._command, '-t'], capture_output=True, text=True)
        finally:
            self.__exit__()

    def __enter__(self):
        with open(self.directory / 'error.log', 'ab') as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
        try:
            wait_until(self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"no nginx: {self.log}")
        with socket.socket() as socket_:
            return not socket_.connect_ex(('127.0.0.1', self.port))

    @property
    def log(self):
        return (self.directory / 'error.log').read_text()

    @property
    def requests(self):
        "The lines of the access log until now"
        return (self.directory / 'access.log').read_text().splitlines()

    def __exit__(self, *_):
        if self._process:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self.directory)
