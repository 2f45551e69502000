"""The bus of the real desktop client, without its window.

As a command, with a server's address, database, login and password, it logs
in, prints "ready" when it polls, and then prints each notification as JSON:
[title, body, priority].
"""
import json
import os
import queue
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock
from urllib.parse import urlsplit

from .server import environment


class Missing(Exception):
    "No client of the series can be downloaded"


def fetch(series):
    """Return a directory to import the client of this series from, from PyPI
    the first time and without the libraries of its window"""
    cache = Path(sys.prefix) / 'cache'
    cache.mkdir(exist_ok=True)
    path = cache / f'tryton-{series}'
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            target = Path(directory) / 'tryton'
            process = subprocess.run(
                [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps',
                    '--target', target, f'tryton == {series}.*'],
                text=True, capture_output=True)
            if process.returncode:
                raise Missing(process.stderr.strip().rpartition('\n')[2])
            os.replace(target, path)
    return path


class Desktop:
    """The client in a process of its own, as a context manager.

    certificate is the one that it trusts.
    """

    def __init__(
            self, package, url, database, certificate, login='admin',
            password='admin'):
        self._command = [
            sys.executable, '-m', 'support.desktop', url, database, login,
            password]
        self._package = package
        self._certificate = certificate

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory()
        environ = environment(
            SSL_CERT_FILE=str(self._certificate),
            XDG_CONFIG_HOME=self._directory.name)
        environ['PYTHONPATH'] += os.pathsep + str(self._package)
        self._log = open(Path(self._directory.name) / 'log', 'w+')
        self._process = subprocess.Popen(
            self._command, env=environ, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._log)
        if (answer := self.read()) != 'ready':
            self.__exit__()
            raise RuntimeError(f"no client: {answer}")
        return self

    def read(self):
        "Wait for the next line, and return its content"
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._log.seek(0)
        raise RuntimeError(f"the client has ended: {self._log.read()}")

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()
        self._directory.cleanup()


def say(value):
    print(json.dumps(value), flush=True)


class Main:
    "The application, as far as the bus knows it"

    def show_notification(self, title, message, priority):
        say([title, message, priority])


def main(url, database, login, password):
    idle = queue.Queue()

    # The window and its libraries; all else is the client's own.
    sys.modules['gi'] = MagicMock()
    sys.modules['gi.repository'] = repository = MagicMock()
    repository.GLib.idle_add = lambda *call: idle.put(call)
    sys.modules['tryton.gui'] = ModuleType('tryton.gui')
    sys.modules['tryton.gui.main'] = ModuleType('tryton.gui.main')
    sys.modules['tryton.gui.main'].Main = Main

    from tryton import rpc
    from tryton.bus import Bus
    from tryton.config import CONFIG
    CONFIG['thread'] = True
    server = urlsplit(url)

    # As tryton.rpc.login, which asks for the password in a window
    connection = rpc.ServerProxy(server.hostname, server.port, database)
    user, token, host = connection.common.db.login(
        login, {'password': password}, 'en')
    connection.close()
    Bus.listen(
        rpc.ServerPool(
            server.hostname, server.port, database,
            session=f'{login}:{user}:{token}'), host)
    say('ready')
    while True:
        function, *args = idle.get()
        function(*args)


if __name__ == '__main__':
    main(*sys.argv[1:])
