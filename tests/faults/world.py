"""The parts of a run: a database, servers, publishers and clients, each in its
own process."""
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing, contextmanager

from support import wait_until
from support.postgresql import PostgreSQL
from support.proxy import Proxy
from support.server import (
    BusServer,
    TrytondServer,
    environment,
    write_config,
)
from support.template import create_on_postgresql, create_on_sqlite

from .account import COLLECTOR
from .faults import NAME
from .log import read

LEDGER = 'CREATE TABLE ledger (unit text PRIMARY KEY)'
KINDS = {
    'trytond': [TrytondServer, TrytondServer],
    'trytond-bus': [BusServer, BusServer],
    'both': [TrytondServer, BusServer, BusServer],
    }
SHARED = [f'test:{number}' for number in range(4)]
# The owner of a connection of PostgreSQL
PUBLISHERS = "application_name = 'publisher'"
BUS = {
    'select_timeout': 1, 'keep_alive_timeout': 2, 'long_polling_timeout': 3,
    'journal_timeout': 600}


class Program:
    "A process of this package that writes to a log"

    def __init__(self, module, task, config, name=''):
        self._module = module
        self._task = task
        self._name = name
        self._starts = 0
        self._environ = environment(
            TRYTOND_CONFIG=str(config), PGAPPNAME='publisher')
        self.process = None

    def start(self, *args):
        self._starts += 1
        name = [f'{self._name}.{self._starts}'] if self._name else []
        log = self._task.with_name(f'{self._module}{self._name}.log')
        with open(log, 'ab') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', f'faults.{self._module}', self._task,
                    *name, *args],
                env=self._environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output)
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()


class World:
    "All parts of a run, as a context manager. __main__.py has the options."

    def __init__(self, directory, options):
        self.directory = directory
        self._options = options
        self._random = random.Random(f'{options.seed} world')
        self._stack = ExitStack()
        # Of the database on SQLite
        self.file = directory / f'{NAME}.sqlite'
        self.postgresql = None
        self.has_journal = options.journal == 'on'
        self.proxies, self.servers, self.publishers = [], [], []
        # Servers that are killed, and servers that are not
        self.mortal, self.steady = [], []

    def __enter__(self):
        with self._stack:
            self._create_database()
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _create_database(self):
        if self._options.database == 'sqlite':
            path = create_on_sqlite(self.file)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(LEDGER)
        else:
            # Committed data has to survive a kill of PostgreSQL.
            self.postgresql = self._stack.enter_context(
                PostgreSQL(synchronous_commit='on'))
            create_on_postgresql(self.postgresql, NAME)
            self.postgresql.execute(LEDGER, NAME)

    def _sections(self):
        "The configuration of the next process, with its own proxy"
        database = {'uri': 'sqlite://', 'path': self.directory}
        if self.postgresql:
            proxy = self._stack.enter_context(Proxy(self.postgresql.port))
            self.proxies.append(proxy)
            database = {'uri': f'postgresql://postgres@127.0.0.1:{proxy.port}'}
        return {'database': database, 'bus': {
                **BUS, 'journal': self._options.journal == 'on',
                'cache_timeout': self._options.cache_timeout,
                'cache_size': self._options.cache_size,
                'class': self._options.bus_class}}

    def _start(self):
        kinds = KINDS[self._options.server]
        steady = [*dict.fromkeys(kinds)] if self._options.rounds else []
        for kind in [*kinds, *steady]:
            sections = self._sections()
            if kind is BusServer:
                sections['bus']['class'] = None
            server = kind(self.directory, sections, [NAME])
            self._stack.callback(server.kill)
            self.servers.append(server)
        self.mortal = self.servers[:len(kinds)]
        self.steady = self.servers[len(kinds):]
        for server in self.steady:
            server.search(COLLECTOR)
        # trytond-bus knows the sessions that trytond makes.
        login = self.servers[0]
        if type(login) is BusServer:
            login = TrytondServer(self.directory, self._sections(), [NAME])
            self._stack.callback(login.kill)
            login.start()
        for server in self.servers:
            server.start()
        config = write_config(
            self.directory / 'publisher.conf', self._sections())
        self._task = self._write_task(login)
        self.clients = Program('client', self._task, config)
        self._stack.callback(self.clients.kill)
        self.clients.start()
        at_once = {id_ for id_ in self.ids if id_ not in self._delays}
        wait_until(lambda: at_once <= self._of_clients('start'), 300)
        if login not in self.servers:
            login.kill()
        for number in range(2):
            publisher = Program('publisher', self._task, config, f'p{number}')
            self._stack.callback(publisher.kill)
            self.publishers.append(publisher.start())
        wait_until(lambda: len({
                    event['unit'].partition('.')[0]
                    for event in read(self._published)}) == 2, 300)
        if self._options.journal == 'on':
            # From now on each client continues after its last message.
            wait_until(lambda: at_once <= self._of_clients('received'), 300)
        self._churn = Program('churn', self._task, config)
        self._stack.callback(self._churn.kill)
        if self._options.churn:
            self._churn.start()
        self._end = Program('publisher', self._task, config, 'end')

    def _write_task(self, login):
        "Write the task of publishers and clients"
        self.ids = {
            str(uuid.UUID(int=self._random.getrandbits(128), version=4)):
            self._random.sample(SHARED, 2)
            for _ in range(self._options.clients)}
        # Messages older than cache_timeout are not for new clients. The first
        # client starts at once, which shows that all have logged in.
        self._delays = {
            id_: self._random.uniform(0, self._options.seconds / 2)
            for id_ in list(self.ids)[1:] if self._random.random() < .4
            } if self._options.cache_timeout > 60 else {}
        self._published = self.directory / 'published'
        self._received = self.directory / 'received'
        self._churned = self.directory / 'churned'
        self._rest = self.directory / 'rest'
        path = self.directory / 'task'
        path.write_text(json.dumps({
                    'database': NAME,
                    'seed': self._options.seed,
                    'rate': self._options.rate,
                    'churn': self._options.churn,
                    'threads': 2,
                    'channels': SHARED + [f'client:{id_}' for id_ in self.ids],
                    'clients': self.ids,
                    'delays': self._delays,
                    'cache_timeout': self._options.cache_timeout,
                    'login': login.url,
                    'logins': [
                        server.url for server in self.servers
                        if type(server) is TrytondServer],
                    'ports': [server.port for server in self.servers],
                    'timeout': BUS['long_polling_timeout'] + 2,
                    'published': str(self._published),
                    'received': str(self._received),
                    'churned': str(self._churned),
                    'rest': str(self._rest),
                    }))
        return path

    def _of_clients(self, event):
        "The clients that have logged such an event"
        return {
            line['client'] for line in read(self._received)
            if line['event'] == event or line.get(event)}

    @contextmanager
    def rest(self):
        "Let all programs pause within the block"
        self._rest.touch()
        try:
            yield
        finally:
            self._rest.unlink()

    def finish(self, deadline):
        """End the publishers and send each client a last message. Return the
        seconds until the last client has it, or None after the deadline"""
        self._churn.kill()
        for publisher in self.publishers:
            publisher.signal(signal.SIGTERM)
        for publisher in self.publishers:
            publisher.process.wait(60)
        if self.postgresql:
            # Units that are still running count as committed before the end.
            wait_until(lambda: not self.postgresql.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE " + PUBLISHERS), 60)
        for _ in range(5):
            if not self._end.start('end').process.wait(60):
                break
        else:
            raise RuntimeError(f"no end: see {self.directory}")
        started = time.monotonic()
        try:
            wait_until(
                lambda: self._of_clients('end') == {*self.ids}, deadline)
        except TimeoutError:
            return None
        else:
            return time.monotonic() - started
        finally:
            self.clients.kill()

    def logs(self):
        "Return the arguments of check.check"
        if self.postgresql:
            rows = self.postgresql.execute('SELECT unit FROM ledger', NAME)
        else:
            with closing(sqlite3.connect(self.file)) as connection:
                rows = connection.execute('SELECT unit FROM ledger').fetchall()
        return (
            read(self._published), read(self._received),
            {unit for unit, in rows})

    def churned(self):
        "Return the counts of the clients that come and go"
        return read(self._churned)
