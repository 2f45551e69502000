"""PgBouncer before a PostgreSQL of this machine."""
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from . import wait_until
from .postgresql import free_port

CONFIG = """\
[databases]
* = host=127.0.0.1 port={target} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = extra_float_digits, options
"""


def find_pgbouncer():
    "Return the path of PgBouncer, which is not on every user's PATH, or None"
    path = os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin'])
    return shutil.which('pgbouncer', path=path)


class PgBouncer:
    "PgBouncer in one of its modes, as a context manager"

    def __init__(self, target, mode):
        self.port = free_port()
        self._config = CONFIG.format(
            target=target, port=self.port, mode=mode)

    def __enter__(self):
        self._directory = Path(tempfile.mkdtemp(prefix='pgbouncer-'))
        # PgBouncer refuses to run as root.
        self._directory.chmod(0o755)
        path = self._directory / 'pgbouncer.ini'
        path.write_text(self._config)
        user = ['-u', 'nobody'] if os.geteuid() == 0 else []
        with open(self._directory / 'log', 'wb') as log:
            self._process = subprocess.Popen(
                [find_pgbouncer(), *user, path], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log)
        try:
            wait_until(self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self):
        if self._process.poll() is not None:
            log = (self._directory / 'log').read_text()
            raise RuntimeError(f"no PgBouncer: {log}")
        with socket.socket() as socket_:
            return not socket_.connect_ex(('127.0.0.1', self.port))

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._directory)
