"""trytond-bus notify and trytond-bus tail, as scripts use them."""
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.bus import payload, publish, received
from support.client import TrytonClient
from support.modes import listened
from support.postgresql import free_port
from support.server import TrytondServer, environment, run_python, write_config

COMMAND = Path(sys.executable).parent / 'trytond-bus'
# The connection of a tail
TAIL = "datname = '%s' AND application_name = 'tail'"
PUBLISH = '''
import sys, json
from trytond.bus import Bus
from trytond.transaction import Transaction
with Transaction().start('tryton', 0):
    for text in sys.argv[1:]:
        Bus.publish('c', json.loads(text))
'''


@pytest.fixture(scope='module')
def database(listening):
    "The database of all tests. Each has channels of its own."
    return listening


@pytest.fixture
def sections(postgresql):
    "Return a configuration with these options of [bus]"
    return lambda **options: {
        'database': {'uri': postgresql.uri}, 'bus': options}


@pytest.fixture
def sqlite(sqlite_database):
    "Return the same on SQLite, where the database is tryton"
    return lambda **options: {
        'database': {'uri': 'sqlite://', 'path': sqlite_database.parent},
        'bus': options}


@pytest.fixture
def notify(tmp_path):
    "Run trytond-bus notify"
    def notify(sections, database, *arguments):
        config = write_config(tmp_path / 'notify.conf', sections)
        return subprocess.run(
            [COMMAND, 'notify', '-c', config, '-d', database, *arguments],
            env=environment(), capture_output=True, text=True, timeout=100)
    return notify


@pytest.fixture
def tail(tmp_path):
    "Return a running trytond-bus tail, as a context manager"
    @contextmanager
    def tail(sections, database, *arguments):
        config = write_config(tmp_path / 'tail.conf', sections)
        process = subprocess.Popen(
            [COMMAND, 'tail', '-c', config, '-d', database, *arguments],
            env=environment(PGAPPNAME='tail'), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
    return tail


def succeeded(done):
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ''


def refused(done, *words):
    assert done.returncode == 1, done
    assert done.stderr.count('\n') == 1
    for word in ['error: ', *words]:
        assert word in done.stderr


def shown(process, publish_one):
    "Publish until the process shows the message, and return its line"
    with ThreadPoolExecutor() as executor:
        line = executor.submit(process.stdout.readline)
        while not line.done():
            assert process.poll() is None, process.stderr.read()
            publish_one()
            try:
                line.result(.2)
            except TimeoutError:
                pass
        return line.result()


def said(process, words):
    "Wait until the process has written a line with these words to stderr"
    while words not in (line := process.stderr.readline()):
        assert line, f"'{words}' was not said"


def ended(process, status):
    "Assert that the process ends by itself, silently"
    assert process.wait(30) == status
    assert process.stderr.read() == ''


def test_notification_reaches_a_poll_that_waits(
        notify, sections, database, tmp_path):
    with TrytondServer(tmp_path, sections(), [database]) as server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)
        with ThreadPoolExecutor() as executor:
            for receiver in [
                    ['--user', 'admin'], ['--user', str(client.user_id)],
                    ['--client', client.id]]:
                poll = executor.submit(client.poll)
                succeeded(notify(
                        sections(), database, *receiver, '--priority', '2',
                        "Hé", "there"))
                channel, message = poll.result()
                assert channel == client.channel
                del message['message_id']
                assert message == {
                    'type': 'notification', 'title': "Hé", 'body': "there",
                    'priority': 2}


def test_notification_is_in_the_journal(
        notify, sections, database, postgresql):
    succeeded(notify(
            sections(journal=True, **{'class': None}), database,
            '--client', 'journal', "T"))
    (message,), = postgresql.execute(
        "SELECT message FROM trytond_fastbus_journal "
        "WHERE channel = 'client:journal'", database)
    assert json.loads(message)['title'] == "T"
    assert json.loads(message)['body'] is None


def test_notification_of_a_stock_configuration(notify, sections, database):
    last, = publish(database, 'client:stock', {})
    succeeded(notify(
            sections(**{'class': 'trytond.bus.LongPollingBus'}), database,
            '--client', 'stock', "T"))
    message, = received(database, 'client:stock', last=last)
    assert message['title'] == "T"


def test_unknown_user(notify, sections, database):
    for user in ['nobody', '999999', '99999999999999']:
        refused(
            notify(sections(), database, '--user', user, "T"),
            f"'{user}'", database)


def test_notification_that_can_not_be_sent(
        notify, sections, sqlite, database):
    refused(
        notify(sections(message_size=100), database, '--client', 'c',
            "x" * 100), 'message_size')
    refused(notify(sections(), 'unknown', '--user', 'admin', "T"), 'unknown')
    refused(notify(sections(), 'postgres', '--user', 'admin', "T"), 'res_user',
        "no notification can be sent on 'postgres'")
    refused(
        notify({'database': {
                    'uri': f'postgresql://127.0.0.1:{free_port()}'}},
            database, '--user', 'admin', "T"), 'refused')
    refused(
        notify(sqlite(), 'tryton', '--user', 'admin', "T"),
        '[bus] journal = True')


@pytest.mark.one_series
@pytest.mark.parametrize('arguments', [
        [], ["T"], ['--user', 'admin'],
        ['--user', 'admin', '--client', 'c', "T"],
        ['--user', 'admin', '--priority', '4', "T"]])
def test_usage(notify, sections, database, arguments):
    done = notify(sections(), database, *arguments)
    assert done.returncode == 2
    assert 'usage: trytond-bus notify' in done.stderr


@pytest.mark.one_series
@pytest.mark.parametrize('arguments', [
        ['check', '--help'], ['--check', '--help'],
        ['-c', 'trytond.conf', '--check', '-d', 'tryton', '--help']])
def test_command_is_a_word_or_an_option(arguments):
    done = subprocess.run(
        [COMMAND, *arguments], env=environment(), capture_output=True,
        text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: trytond-bus check')


@pytest.mark.one_series
def test_configuration_that_is_not_there(tmp_path):
    done = subprocess.run(
        [COMMAND, 'tail', '-c', tmp_path / 'none', '-d', 'tryton'],
        env=environment(), capture_output=True, text=True, timeout=100)
    refused(done, 'No such file')


def test_messages_are_shown(tail, sections, database):
    message = {
        'type': 'notification', 'title': "Hé\n", 'body': "a\x1b[31m b"}
    with tail(sections(), database, '--channel', 'shown:?') as process:
        line = shown(process, lambda: publish(
                database, 'shown:1', dict(message)))
        assert line.endswith(
            '  shown:1  notification  Hé: a?[31m b\n'), line
        publish(database, 'shown:10', {'type': 'other'})
        publish(database, 'else', {'type': 'other'})
        publish(database, 'shown:2', {'number': 2, 'text': "x" * 200})
        publish(database, 'shown:3', {'text': "é" * 20000})
        while 'shown:1' in line:
            line = process.stdout.readline()
        assert '  shown:2  -  {"number": 2, "text": "xxx' in line
        assert len(line) < 170
        assert '  shown:3  -  {"text": "ééé' in process.stdout.readline()


@pytest.mark.one_series
@pytest.mark.parametrize('journal', [False, True])
def test_messages_are_shown_as_json(tail, sections, database, journal):
    messages = [{'number': n, 'text': "é" * n} for n in [0, 1, 9000, 2]]
    with tail(
            sections(journal=journal), database, '--json', '--channel',
            'json:*', 'mark') as process:
        line = shown(process, lambda: publish(database, 'mark', {}))
        sender = [
            'publish', database, 'json:1', *messages]
        if journal:
            from support.peer import Peer
            with Peer(sections(journal=True)) as peer:
                ids = peer.call(*sender)
        else:
            ids = publish(database, 'json:1', *messages)
        while json.loads(line)['channel'] == 'mark':
            line = process.stdout.readline()
        for message, id_ in zip(messages, ids, strict=True):
            content = json.loads(line)
            assert content['time']
            assert content['channel'] == 'json:1'
            assert content['message'] == {**message, 'message_id': id_}
            if message is not messages[-1]:
                line = process.stdout.readline()


@pytest.mark.one_series
def test_journal_is_shown_since(
        tail, sections, database, postgresql, notify):
    for title in ["old", "new"]:
        succeeded(notify(
                sections(journal=True), database, '--client', 'since', title))
    postgresql.execute(
        "UPDATE trytond_fastbus_journal SET created = created - "
        "interval '1000 s' WHERE message LIKE '%old%'", database)
    arguments = ['--channel', 'client:since', '--since']
    with tail(sections(journal=True), database, *arguments, '500') as process:
        assert "  new\n" in process.stdout.readline()
        succeeded(notify(
                sections(journal=True), database, '--client', 'since', "last"))
        assert "  last\n" in process.stdout.readline()
    with tail(
            sections(journal=True), database, *arguments, '2000') as process:
        for title in ["old", "new", "last"]:
            assert f"  {title}\n" in process.stdout.readline()


def test_connection_that_is_lost_is_opened_again(
        tail, sections, database, postgresql, notify):
    for journal in [False, True]:
        with tail(
                sections(journal=journal), database, '--channel', 'client:lost'
                ) as process:
            shown(process, lambda: publish(database, 'client:lost', {}))
            assert postgresql.terminate_backends(TAIL % database)
            said(process, "has no connection")
            if journal:
                succeeded(notify(
                        sections(journal=True), database,
                        '--client', 'lost', "meanwhile"))
                while 'meanwhile' not in process.stdout.readline():
                    pass
            said(
                process,
                "were read from the journal" if journal else "are lost")
            shown(process, lambda: publish(database, 'client:lost', {}))


@pytest.mark.one_series
def test_numbers_that_go_back_are_noticed(
        tail, sections, database, postgresql, notify):
    """The rows that are restored have been shown, and messages that follow
    have their numbers."""
    def send(title):
        postgresql.execute(
            "INSERT INTO trytond_fastbus_journal (channel, message) VALUES "
            f"('client:back', '{{\"message_id\": \"{title}\", "
            f"\"title\": \"{title}\"}}')", database)

    succeeded(notify(
            sections(journal=True), database, '--client', 'back', "before"))
    with tail(
            sections(journal=True), database, '--channel', 'client:back',
            '--since', '1000') as process:
        for title in ["before", "1", "2", "3"]:
            if title != "before":
                send(title)
            assert f"  {title}\n" in process.stdout.readline()
        postgresql.execute(
            'DELETE FROM trytond_fastbus_journal WHERE seq > 1; '
            "SELECT setval('trytond_fastbus_journal_seq', 1)", database)
        send("after")
        assert "  after\n" in process.stdout.readline()
        said(process, "went back from number")


@pytest.mark.one_series
def test_database_that_is_dropped_ends_it(tail, sections, postgresql):
    postgresql.create_database('dropped')
    with tail(sections(), 'dropped') as process:
        text = payload('c', {'message_id': 1}).replace("'", "''")
        shown(process, lambda: postgresql.execute(
                f"SELECT pg_notify('bus', '{text}')", 'dropped'))
        postgresql.drop_database('dropped')
        assert process.wait(60) == 1
        assert "does not exist any more" in process.stderr.read()


@pytest.mark.one_series
def test_interrupt_ends_it(tail, sections, database):
    with tail(sections(), database) as process:
        shown(process, lambda: publish(database, 'interrupt', {}))
        process.send_signal(signal.SIGINT)
        ended(process, 130)


@pytest.mark.one_series
def test_closed_output_ends_it(tail, sections, sqlite, database):
    with tail(sections(), database) as process:
        shown(process, lambda: publish(database, 'gone', {}))
        process.stdout.close()
        ended(process, 0)
        process.stdout = None
    with tail(sqlite(journal=True), 'tryton') as process:
        process.stdout.close()
        ended(process, 0)
        process.stdout = None


def test_messages_on_sqlite(tail, sqlite, notify):
    def publish_one():
        succeeded(notify(
                sqlite(journal=True), 'tryton', '--user', 'admin', "Hé"))

    with tail(sqlite(journal=True), 'tryton') as process:
        line = shown(process, publish_one)
        assert line.endswith('  user:1  notification  Hé\n'), line
        done = run_python(
            PUBLISH, sqlite(journal=True), '{"number": 1}', '{"number": 2}')
        assert not done.returncode, done.stderr
        while 'Hé' in line:
            line = process.stdout.readline()
        assert line.endswith('  c  -  {"number": 1}\n')
        assert process.stdout.readline().endswith('  c  -  {"number": 2}\n')
    with tail(
            sqlite(journal=True), 'tryton', '--since', '1000', '--channel',
            'c') as process:
        assert process.stdout.readline().endswith('  c  -  {"number": 1}\n')


@pytest.mark.one_series
@pytest.mark.parametrize('backend, database_, arguments, words', [
        ('sqlite', 'tryton', [], '[bus] journal = True'),
        ('sections', None, ['--since', '1'], 'journal'),
        ('sections', 'unknown', [], 'unknown'),
        ])
def test_tail_that_can_not_begin(
        tail, database, backend, database_, arguments, words, request):
    sections = request.getfixturevalue(backend)
    with tail(sections(), database_ or database, *arguments) as process:
        assert process.wait(60) == 1
        error = process.stderr.read()
    assert error.startswith('trytond-bus tail: error: ')
    assert words in error
    assert error.count('\n') == 1
