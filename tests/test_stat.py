"""trytond-bus stat, on a real trytond-bus."""
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.polls import Polls
from support.postgresql import free_port
from support.server import BusServer, TrytondServer, environment, write_config
from trytond_fastbus.commands import Failure, stat

pytestmark = pytest.mark.one_series

COMMAND = Path(sys.executable).parent / 'trytond-bus'
NAMES = st.text(st.characters(exclude_categories=['Cs']))


@pytest.fixture(scope='module')
def database(listening):
    "The database of all tests"
    return listening


@pytest.fixture(scope='module')
def client(postgresql, database, tmp_path_factory):
    "A client with a session"
    directory = tmp_path_factory.mktemp('trytond')
    sections = {'database': {'uri': postgresql.uri}}
    with TrytondServer(directory, sections, [database]) as server:
        yield TrytonClient(server.url, database)


@pytest.fixture
def serve(postgresql, database, tmp_path):
    "Return a bus server of the database with these options"
    def serve(**options):
        return BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'class': None, 'select_timeout': 1, **options},
                }, [database])
    return serve


def look(server):
    return stat.Look(stat.ask(f'127.0.0.1:{server.admin_port}'))


def cells(lines):
    "The values of both parts of a table, by the names of their columns"
    parts = '\n'.join(lines).split('\n\n')
    rows = [
        [dict(zip(*(
                        re.split('  +', line.strip())
                        for line in (head, row)), strict=True))
            for row in rest]
        for head, *rest in (part.splitlines() for part in parts[1:])]
    (server,), databases = rows
    return server, {row['DATABASE']: row for row in databases}


def run(directory, *arguments, **options):
    config = write_config(directory / 'stat.conf', {'bus': options})
    return subprocess.run(
        [COMMAND, '-c', config, '--stat', *arguments], env=environment(),
        capture_output=True, text=True, timeout=60)


def test_table_counts_events_between_two_looks(
        serve, client, database):
    with serve() as server:
        server.listened(database)
        channels = [f'client:{number}' for number in range(3)]
        with Polls(server.port, database, client._headers, channels) as polls:
            wait_until(lambda: server.metric('polls_waiting') == 3)
            before = look(server)
            publish(database, 'client:0', {'n': 0}, {'n': 1})
            publish(database, f'user:{client.user_id}', {'n': 2})
            polls.wait(3)
            # The latency is counted after the answer is sent.
            wait_until(lambda: server.metric('delivery_seconds_count') == 3)
            now = look(server)

        now.time = before.time + 4
        shown, databases = cells(stat.table('here', before, now))
        assert {name: shown[name] for name in [
                    'POLLS', 'MESSAGES/S', 'DELIVERIES/S']} == {
            'POLLS': '0', 'MESSAGES/S': '0.8', 'DELIVERIES/S': '0.8'}
        assert re.fullmatch(r'\d+\.\d+ ms', shown['P50'])
        assert re.fullmatch(r'\d+\.\d+ m?s', shown['P99'])
        assert databases == {database: {
                'DATABASE': database, 'LISTENING': 'yes', 'RETAINED': '3',
                'GAPS': '0', 'SKIPPED': '0', 'EVICTED': '0', 'JOURNAL': '-'}}
        # Nothing has happened since.
        later = look(server)
        later.time = now.time + 1
        shown, _ = cells(stat.table('here', now, later))
        assert shown['MESSAGES/S'] == '0.0'
        assert shown['P50'] == shown['P99'] == '-'


def test_number_of_the_journal_is_shown(serve, database):
    with serve(journal=True) as server:
        server.listened(database)
        number = 'journal_number{database="%s"}' % database
        wait_until(lambda: server.metric(number) is not None)
        now = look(server)
        _, databases = cells(stat.table('here', now, now))
        assert databases[database]['JOURNAL'] == '%d' % server.metric(number)


def test_script_gets_one_table_of_the_address_in_the_configuration(
        serve, database, tmp_path):
    path, port = tmp_path / 'admin.sock', free_port()
    addresses = f'unix:{path}, 127.0.0.1:{port}'
    server = serve(admin_listen=addresses)
    server.admin_port = port
    with server:
        server.listened(database)
        for arguments, options, address in [
                ([], {'admin_listen': addresses}, f'unix:{path}'),
                (['--admin-listen', f'localhost:{port}'], {},
                    f'localhost:{port}'),
                ]:
            done = run(tmp_path, '--interval', '.1', *arguments, **options)

            assert done.returncode == 0, done.stderr
            assert not done.stderr
            assert done.stdout.startswith(f'trytond-bus at {address}, serving')
            assert '\x1b' not in done.stdout
            _, databases = cells(done.stdout.splitlines())
            assert databases[database]['LISTENING'] == 'yes'


class Terminal:
    "The command on a terminal of 80 columns, as a context manager"

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        self.text = ''
        try:
            self.process = subprocess.Popen(
                [COMMAND, 'stat', *arguments], stdin=slave, stdout=slave,
                stderr=slave, env=environment(COLUMNS='80', LINES='24'))
        finally:
            os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            while data := os.read(self._master, 65536):
                self.text += data.decode()
        except OSError:
            pass  # the command has ended

    @property
    def screen(self):
        "The screen after the last drawing"
        return self.text.rpartition('\x1b[J')[0].rpartition('\x1b[H')[2]

    def wait(self, text):
        wait_until(lambda: text in self.screen, message=f"no {text}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        os.close(self._master)


def test_terminal_is_drawn_anew_until_an_interrupt(serve, database):
    with serve() as server, Terminal(
            '--admin-listen', f'127.0.0.1:{server.admin_port}',
            '--interval', '.2') as terminal:
        terminal.wait(', serving')
        terminal.wait(database)
        # Outages are survived, and their reason is shown.
        server.kill()
        terminal.wait('Connection refused, trying again')
        assert 'POLLS' not in terminal.screen
        server.start()
        terminal.wait(', serving')

        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 0
        assert 'Traceback' not in terminal.text
        for line in terminal.screen.splitlines():
            assert len(re.sub(r'\x1b\[\d*[a-zA-Z]', '', line)) <= 80


def of_databases(values):
    "The metrics of databases: {name: (listening, evicted)}"
    lines = ['', 'trytond_bus_polls_waiting 1']
    for name, (listening, evicted) in values.items():
        lines += [
            f'trytond_bus_listening{{database="{name}"}} {listening}',
            f'trytond_bus_history_messages{{database="{name}"}} 2',
            f'trytond_bus_evicted_total{{database="{name}"}} {evicted}']
    return '\n'.join(lines) + '\n'


def test_worst_of_many_databases_come_first(other):
    values = {f'shop{number}': (1, 0) for number in range(297)}
    values.update(a=(1, 3), b=(0, 0), c=(1, 700))
    look = stat.Look(of_databases(values))
    head, totals, *_ = lines = stat.table('here', look, look, most=23)
    assert totals == (
        "23 of 300 databases, worst first; in all: 1 not listening, "
        "600 retained, 0 gaps, 0 skipped, 703 evicted")
    _, databases = cells(lines)
    assert list(databases)[:5] == ['b', 'c', 'a', 'shop0', 'shop1']
    assert len(databases) == 23

    _, databases = cells(stat.table('here', look, look, 'SHOP29'))
    assert list(databases) == ['shop29', *(
            f'shop{number}' for number in range(290, 297))]

    # A terminal shows the number of databases that fits its height.
    text = of_databases(values).encode()
    answer = (
        b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n' % len(text) + text)
    address = other(answer, 2)
    with Terminal(
            '--admin-listen', address, '--interval', '.1', '--filter',
            'o') as terminal:
        terminal.wait(' of 300 databases')
        screen = re.sub(r'\x1b\[\d*[a-zA-Z]', '', terminal.screen)
    rows = [line for line in screen.splitlines() if line.startswith('shop')]
    assert f'{len(rows)} of 300 databases' in screen
    assert 10 < len(rows) and len(screen.splitlines()) < 24


@pytest.fixture
def other(tmp_path):
    """Return the address of a server that sends this answer `times` times, and
    closes the connection each time"""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve(answer, times=1):
            def accept():
                for _ in range(times):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(answer)
            thread = threading.Thread(target=accept)
            thread.start()
            threads.append(thread)
            return '%s:%d' % listener.getsockname()
        threads = []
        yield serve
        for thread in threads:
            thread.join()


@pytest.mark.parametrize('answer', [
        b'SSH-2.0-OpenSSH\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
        b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok',
        b'HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n\n'
        b'trytond_bus_polls_waiting 1\n',
        b'HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n',
        ])
def test_other_server_is_reported(answer, other):
    address = other(answer)
    with pytest.raises(Failure) as raised:
        stat.run(Namespace(
                admin_listen=address, interval=2, filter=''))
    assert str(raised.value) == (
        f"the answer of {address} is not that of a bus server: give the "
        "address of [bus] admin_listen")


def test_address_of_the_clients_is_none_of_administrators(
        serve, tmp_path):
    with serve() as server:
        done = run(tmp_path, '--admin-listen', f'127.0.0.1:{server.port}')
        assert done.returncode == 1
        assert 'is not that of a bus server' in done.stderr


@pytest.mark.parametrize('arguments, said', [
        ([], "set [bus] admin_listen"),
        (['--admin-listen', ' , '], "set [bus] admin_listen"),
        (['--admin-listen', 'localhost'], "'localhost' is no address"),
        (['--admin-listen', 'a b:1'], "'a b:1' is no address"),
        (['--admin-listen', '::1:1'], "'::1:1' is no address"),
        (['--admin-listen', '127.0.0.1:1'],
            "no bus server answers at 127.0.0.1:1: Connection refused"),
        (['--admin-listen', '*:1'],
            "no bus server answers at *:1: Connection refused"),
        (['--admin-listen', 'unix:/nowhere'],
            "no bus server answers at unix:/nowhere: No such file"),
        (['--admin-listen', 'x' * 80 + ':1'], "no bus server answers at xxx"),
        (['--interval', '0'], "the interval must be from 0.1 to 3600"),
        (['--interval', 'nan'], "the interval must be from 0.1 to 3600"),
        (['--interval', 'often'], "--interval"),
        ])
def test_error_names_the_fault(arguments, said, tmp_path):
    failed = run(tmp_path, *arguments)
    assert failed.returncode in {1, 2}
    assert not failed.stdout
    assert said in failed.stderr
    assert 'trytond-bus stat: error: ' in failed.stderr
    assert 'Traceback' not in failed.stderr


def test_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(stat, 'TIMEOUT', .1)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        started = time.monotonic()
        address = '%s:%d' % listener.getsockname()
        with pytest.raises(Failure, match='timed out'):
            stat.run(Namespace(
                admin_listen=address, interval=2, filter=''))
        assert time.monotonic() - started < 5


def escape(name):
    "Escape a name as the server does"
    for character, escaped in [('\\', r'\\'), ('\n', r'\n'), ('"', r'\"')]:
        name = name.replace(character, escaped)
    return name


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 2**53)))
def test_any_name_of_a_database_is_read(values):
    text = '# HELP trytond_bus_listening a="b"\n' + ''.join(
        f'trytond_bus_listening{{database="{escape(name)}"}} {value}\n'
        for name, value in values.items())
    assert list(stat.parse(text)) == [
        ('listening', {'database': name}, value)
        for name, value in values.items()]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_as_something_or_nothing(text):
    try:
        samples = list(stat.parse(text))
    except ValueError:  # of a number that is none
        return
    assert len(samples) <= text.count('\n') + 1


def test_all_labels_and_numbers_are_read():
    assert list(stat.parse(
            'a{b="c",d="}\\\\n{"} 1e-4\nb +Inf\nno sample at all\n')) == [
        ('a', {'b': 'c', 'd': '}\\n{'}, 1e-4), ('b', {}, float('inf'))]


@pytest.mark.parametrize('counts, part, seconds', [
        ([0, 0, 0], .5, None),
        ([10, 10, 10], .5, .5),
        ([0, 10, 10], .5, 1.5),
        ([5, 10, 10], .99, 1.98),
        ([0, 0, 7], .5, 2),  # above the last bound
        ([9, 9, 10], .99, 2),
        ])
def test_quantile_is_within_its_bucket(counts, part, seconds):
    buckets = dict(zip([1, 2, float('inf')], counts, strict=True))
    assert stat.quantile(buckets, part) == (
        seconds if seconds is None else pytest.approx(seconds))


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1), st.floats(.01, 1))
def test_quantiles_rise_and_stay_between_the_bounds(counts, part):
    total, buckets = 0, {}
    for bound, count in enumerate(counts, 1):
        total += count
        buckets[bound] = total
    value = stat.quantile(buckets, part)
    if not total:
        assert value is None
    else:
        assert 0 <= stat.quantile(buckets, part / 2) <= value <= len(counts)


def said(**values):
    "The metrics of a server: numbers, or numbers of databases"
    lines = ['', 'trytond_bus_polls_waiting 1']
    for name, value in values.items():
        lines += [
            f'trytond_bus_{name}{{database="{escape(label)}"}} {number}'
            for label, number in value.items()
            ] if isinstance(value, dict) else [f'trytond_bus_{name} {value}']
    return stat.Look('\n'.join(lines) + '\n')


def test_counter_that_began_anew_counts_from_zero():
    before, now = said(delivered_total=100), said(delivered_total=8)
    now.time = before.time + 2
    shown, _ = cells(stat.table('here', before, now))
    assert shown['DELIVERIES/S'] == '4.0'


def test_state_is_said_in_words():
    now = said(draining=1, listening={'a': 0, 'b': 1})
    title, *_ = lines = stat.table('here', now, now)
    assert title == 'trytond-bus at here, draining'
    _, databases = cells(lines)
    assert [row['LISTENING'] for row in databases.values()] == ['no', 'yes']


def test_name_of_a_database_does_nothing_to_the_terminal():
    now = said(listening={'\x1b[2J\xe9\n': 1})
    *_, line = stat.table('here', now, now)
    assert line.startswith('\ufffd[2J\xe9\ufffd ')
