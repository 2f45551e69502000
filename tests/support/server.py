"""Real trytond servers, and other processes, with a configuration of their
own."""
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

from . import wait_until
from .postgresql import free_port

ROOT = Path(__file__).parents[2]


def environment(**extra):
    "Return the environment of a process without our trytond configuration"
    environ = {
        name: value for name, value in os.environ.items()
        if not name.startswith('TRYTOND_') and name != 'DB_NAME'}
    path = [
        *map(str, [ROOT, ROOT / 'tests', ROOT / 'examples']),
        environ.get('PYTHONPATH')]
    environ['PYTHONPATH'] = os.pathsep.join(filter(None, path))
    environ.update(extra)
    return environ


def write_config(path, sections):
    "Write {section: {option: value}} over the defaults of all tests"
    defaults = {
        'bus': {'allow_subscribe': True, 'class': 'trytond_fastbus.Bus'},
        }
    with open(path, 'w') as file:
        for section in {**defaults, **sections}:
            file.write(f"[{section}]\n")
            options = {
                **defaults.get(section, {}), **sections.get(section, {})}
            for option, value in options.items():
                if value is not None:
                    file.write(f"{option} = {value}\n")
    return path


def create_tryton(sections, database, password='admin', directory=None):
    "Make a Tryton database with the modules ir and res"
    with tempfile.TemporaryDirectory(dir=directory) as directory:
        directory = Path(directory)
        password_file = directory / 'password'
        password_file.write_text(password)
        config = write_config(
            directory / 'trytond.conf', {'bus': {'class': None}, **sections})
        process = subprocess.run(
            [sys.executable, Path(sys.executable).parent / 'trytond-admin',
                '-c', config, '-d', database, '-u', 'ir', 'res'],
            env=environment(TRYTONPASSFILE=str(password_file)),
            input='\n',  # it asks for the email
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if process.returncode:
            raise RuntimeError(f"trytond-admin failed: {process.stdout}")


def run_python(source, sections, *args, timeout=120, **environ):
    "Run the program in a process of its own with this configuration"
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(Path(directory) / 'trytond.conf', sections)
        return subprocess.run(
            [sys.executable, '-c', source, *map(str, args)],
            env=environment(TRYTOND_CONFIG=str(config), **environ),
            timeout=timeout, text=True, capture_output=True)


def get(port, path):
    "Return the status and the text of a server's answer"
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    try:
        connection.request('GET', path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


# Runs a command with a socket as systemd hands it over: the first one has the
# number 3, and the variables name the process that they are for.
INHERIT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')
os.execv(sys.argv[2], sys.argv[2:])
"""


class TrytondServer:
    """A server in its own process group, as a context manager.

    kind is 'threaded' (the command trytond), 'coroutine' (with --coroutine) or
    'gunicorn' (preloaded, with the WSGI application). The commands log their
    work unless verbose is false.
    """

    # Which the process inherits
    _descriptors = ()

    def __init__(
            self, directory, sections, databases=(), kind='threaded',
            workers=2, threads=8, wsgi='trytond.application:app',
            verbose=True):
        self.port = free_port()
        self.url = (
            f'https://localhost:{self.port}' if 'ssl' in sections
            else f'http://127.0.0.1:{self.port}')
        self._log = Path(directory) / f'trytond-{self.port}.log'
        config = write_config(
            Path(directory) / f'trytond-{self.port}.conf', {
                **sections,
                'web': {
                    **sections.get('web', {}),
                    'listen': f'127.0.0.1:{self.port}',
                    },
                })
        binaries = Path(sys.executable).parent
        if kind == 'gunicorn':
            self._command = [
                binaries / 'gunicorn', '--preload', '--bind',
                f'127.0.0.1:{self.port}', '--workers', str(workers),
                '--threads', str(threads), wsgi]
        else:
            self._command = [
                binaries / 'trytond', '-c', config, *['-v'] * verbose]
            if databases:
                self._command += ['-d', *databases]
            if kind == 'coroutine':
                self._command.append('--coroutine')
        self._environ = environment(
            TRYTOND_CONFIG=str(config), PYTHONUNBUFFERED='1',
            TRYTOND_LOGGING_LEVEL='20')
        if kind == 'gunicorn' and databases:
            self._environ['TRYTOND_DATABASE_NAMES'] = ','.join(databases)
        self.process = None

    def search(self, directory):
        "Let it search modules there first; called before it is started"
        self._environ['PYTHONPATH'] = os.pathsep.join(
            [str(directory), self._environ['PYTHONPATH']])

    def add(self, *arguments):
        "Add arguments; called before it is started"
        self._command += arguments

    def start(self, deadline=60):
        "Start the server and wait until it answers"
        with open(self._log, 'ab') as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command], env=self._environ,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=self._descriptors, start_new_session=True)
        try:
            wait_until(self._answers, deadline)
        except BaseException as error:
            self.kill()
            raise RuntimeError(f"no trytond: {self.log}") from error
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"status {self.process.returncode}")
        try:
            return self._is_ready()
        except OSError:
            return False

    def _is_ready(self):
        if self.url.startswith('https:'):
            ssl.get_server_certificate(('localhost', self.port), timeout=30)
        else:
            get(self.port, '/')
        return True

    @property
    def log(self):
        return self._log.read_text()

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self, timeout=60):
        "Ask the server to end, wait for it and return its exit status"
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self):
        "End the server and all of its workers at once"
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    __enter__ = start

    def __exit__(self, *_):
        self.kill()


class BusServer(TrytondServer):
    """The command trytond-bus, in the same way.

    inherited is a socket that listens, handed over as systemd does.
    """

    def __init__(
            self, directory, sections, databases=(), arguments=(),
            environ=None, inherited=None, verbose=True):
        self.port, self.admin_port = free_port(), free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        self._log = Path(directory) / f'trytond-bus-{self.port}.log'
        config = write_config(
            Path(directory) / f'trytond-bus-{self.port}.conf', {
                **sections,
                'bus': {
                    'listen': f'127.0.0.1:{self.port}',
                    'admin_listen': f'127.0.0.1:{self.admin_port}',
                    'drain': 1,
                    **sections.get('bus', {}),
                    },
                })
        self._command = [
            Path(sys.executable).parent / 'trytond-bus', '-c', config,
            *['-v'] * verbose, *arguments]
        if databases:
            self._command += ['-d', *databases]
        self._environ = environment(PYTHONUNBUFFERED='1', **(environ or {}))
        if inherited:
            self._descriptors = [inherited.fileno()]
            self._command = [
                '-c', INHERIT, str(inherited.fileno()), sys.executable,
                *self._command]
        self.process = None

    def _is_ready(self):
        return self.admin('/health/ready')[0] == 200

    def admin(self, path):
        "Return the status and the text of a page for administrators"
        return get(self.admin_port, path)

    def listened(self, database):
        "Wait until the server listens to the database"
        metric = 'listening{database="%s"}' % database
        wait_until(lambda: self.metric(metric), 30)

    def metric(self, name):
        "Return the value of a metric, with its labels if it has any, or None"
        for line in self.admin('/metrics')[1].splitlines():
            if line.startswith(f'trytond_bus_{name} '):
                return float(line.rpartition(' ')[2])
