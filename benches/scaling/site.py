"""The measured system: PostgreSQL, bus servers on one port, and their clients.
"""
import json
import os
import random
import re
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack

import psycopg

from tests.support.postgresql import PostgreSQL, free_port
from tests.support.server import BusServer
from tests.support.template import create_on_postgresql

from ..programs import LOAD

DATABASE = 'scale'
TICKS = os.sysconf('SC_CLK_TCK')
# The ids of the clients' users begin here
FIRST = 1000
# The clients of one process. The kernel searches longer for a free port when
# few are left for the address, and it tries only every other one.
CLIENTS_MAX = 10_000

# A user with a session for each client, from the address that it polls from
USERS = """
INSERT INTO res_user (id, name, login, active, create_date)
    SELECT n, 'u' || n, 'u' || n, true, now()
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""
SESSIONS = """
INSERT INTO ir_session (key, create_uid, create_date, ip_address)
    SELECT lpad(to_hex(n), 64, '0'), n, now()::timestamp, %(address)s
    FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""


class Site:
    """PostgreSQL, bus servers on one port and the clients, as a context
    manager

    sockets says how the servers listen: on one that they 'share', on one each
    that the service manager has 'held', or on their 'own' ([bus] reuse_port).
    """

    def __init__(self, clients, servers, sockets='held'):
        self.clients, self.number = clients, servers
        self.sockets = sockets
        self.options = {
            'class': None, 'journal': True, 'max_polls': 19_000,
            'max_connections': 19_800,
            # As for a proxy on the same host
            'keep_alive': 0}
        # Of its own for each run, whose ports are not free again at once
        self._network = '127.%d.1' % random.randrange(1, 255)
        self.servers, self.loads = [], []
        self.published = 0

    def __enter__(self):
        with ExitStack() as stack:
            self.directory = stack.enter_context(
                tempfile.TemporaryDirectory())
            self.postgresql = stack.enter_context(PostgreSQL(
                    max_connections=400, shared_buffers='512MB'))
            create_on_postgresql(self.postgresql, DATABASE)
            self.connection = stack.enter_context(psycopg.connect(
                    '%s/%s' % (self.postgresql.uri, DATABASE),
                    autocommit=True))
            self._make_sessions()
            self.port = free_port()
            self._listeners = [
                self._socket() for _ in range({
                        'share': 1, 'held': self.number, 'own': 0}[
                        self.sockets])]
            for number in range(self.number):
                server = self.server(number)
                server.start()
                self.servers.append(server)
            for server in self.servers:
                server.listened(DATABASE)
            stack.callback(lambda: [s.kill() for s in self.servers])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.end()
        self._stack.close()

    def _parts(self):
        "The clients of each process: its address, its first user, how many"
        for number in range(-(-self.clients // CLIENTS_MAX)):
            first = number * CLIENTS_MAX
            yield ('%s.%d' % (self._network, number + 1), FIRST + first,
                min(CLIENTS_MAX, self.clients - first))

    def _make_sessions(self):
        for address, first, number in self._parts():
            values = {
                'address': address, 'first': first, 'last': first + number - 1}
            self.connection.execute(USERS, values)
            self.connection.execute(SESSIONS, values)
        self.connection.execute('ANALYZE')

    def _socket(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(('127.0.0.1', self.port))
        listener.listen(4096)
        return listener

    def server(self, number):
        "The server in this place, not yet started"
        inherited, options = None, self.options
        if self.sockets == 'own':
            options = {
                **options, 'reuse_port': True,
                'listen': '127.0.0.1:%d' % self.port}
        else:
            inherited = self._listeners[number % len(self._listeners)]
        return BusServer(self.directory, {
                'database': {'uri': self.postgresql.uri}, 'bus': options,
                }, [DATABASE], inherited=inherited)

    def connect(self, rate):
        "Have all clients come, so many a second"
        parts = list(self._parts())
        self.loads = [
            Load(self.port, *part, max(1, rate // len(parts)))
            for part in parts]

    def seen(self):
        "What the clients have seen since their counts began, as a dictionary"
        seen = [load.stat() for load in self.loads]
        total = {
            name: sum(part[name] for part in seen) for name in seen[0]
            if name not in {'first', 'median', 'last'}}
        total['first'] = min(part['first'] for part in seen)
        total['median'] = sorted(part['median'] for part in seen)[
            len(seen) // 2]
        total['last'] = max(part['last'] for part in seen)
        return total

    def begin(self):
        for load in self.loads:
            load.tell('begin')
        # Its answer comes after the counts have begun.
        self.seen()

    def publish(self):
        "Publish a message to all and return when its commit had returned"
        self.published += 1
        id = '00000000-0000-4000-9000-%012d' % self.published
        self.connection.execute(
            "INSERT INTO trytond_fastbus_journal (channel, message) "
            "VALUES (%s, %s)", ('chat:scale,1', json.dumps({
                        'type': 'message', 'message': "Some text of the "
                        "usual length", 'message_id': id})))
        return time.time()

    def waiting(self):
        "How many polls wait, at each of the servers that answer"
        waiting = []
        for server in self.servers:
            try:
                waiting.append(int(server.metric('polls_waiting') or 0))
            except OSError:
                waiting.append(0)
        return waiting

    def wait(self, deadline=600):
        "Wait until all polls wait; return how many do at each server"
        end = time.monotonic() + deadline
        while sum(waiting := self.waiting()) < self.clients:
            if time.monotonic() > end:
                raise TimeoutError(f"{waiting} polls wait: {self.seen()}")
            time.sleep(.05)
        return waiting

    def cpu(self):
        "CPU in seconds of the servers, PostgreSQL and the clients"
        postmaster = int((
                self.postgresql.directory / 'data' / 'postmaster.pid')
            .read_text().split()[0])
        return {
            'servers': sum(cpu(server.process.pid) for server in self.servers),
            'postgresql': sum(map(cpu, [postmaster, *children(postmaster)])),
            'clients': sum(cpu(load.process.pid) for load in self.loads),
            }

    def memory(self):
        "Bytes: of the servers, and of the kernel for both ends"
        return {
            'servers': sum(pss(server.process.pid) for server in self.servers),
            'clients': sum(pss(load.process.pid) for load in self.loads),
            'kernel': kernel_memory(),
            }


class Load:
    "A process of clients"

    def __init__(self, port, source, first, clients, rate):
        self.process = subprocess.Popen(
            [LOAD / 'target' / 'release' / 'hold', '127.0.0.1:%d' % port,
                source, str(first), str(clients), str(rate)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1)

    def tell(self, command):
        self.process.stdin.write(command + '\n')

    def stat(self):
        self.tell('stat')
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.kill()
        self.process.communicate()


def cpu(process):
    "Seconds that a process has used, and those of it that were waited for"
    try:
        with open('/proc/%d/stat' % process) as file:
            fields = file.read().rpartition(')')[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15])) / TICKS


def children(process):
    with open('/proc/%d/task/%d/children' % (process, process)) as file:
        return list(map(int, file.read().split()))


def pss(process):
    with open('/proc/%d/smaps_rollup' % process) as file:
        return int(re.search(r'^Pss: +(\d+)', file.read(), re.M)[1]) * 1024


def kernel_memory():
    "Bytes of the kernel's slabs, where connections are for the most part"
    with open('/proc/meminfo') as file:
        return int(re.search(r'^Slab: +(\d+)', file.read(), re.M)[1]) * 1024
