"""Servers that load the application before they fork their workers."""
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.server import TrytondServer, environment, write_config

UWSGI = shutil.which('uwsgi', path=str(Path(sys.executable).parent))
POLLS = 8


@pytest.fixture
def sections(postgresql):
    return {
        'database': {'uri': postgresql.uri},
        'bus': {'select_timeout': 1, 'long_polling_timeout': 60},
        'wsgi middleware': {'insight': 'support.insight.insight'},
        }


def poll(client, port, channel, last=None):
    "Poll, and return the process that answered and the message"
    connection = HTTPConnection('127.0.0.1', port, timeout=90)
    try:
        connection.request(
            'POST', client.url.rpartition('/')[2].join('//') + 'bus',
            json.dumps({'channels': [channel], 'last_message': last}),
            client._headers)
        response = connection.getresponse()
        body = json.load(response)
        return response.headers['X-Process'], body['message']
    finally:
        connection.close()


def check_workers(port, database, channel):
    "Poll until each of two workers has answered with a new message"
    client = TrytonClient(f'http://127.0.0.1:{port}', database, timeout=60)
    answered, last = set(), None

    def each_has_answered():
        nonlocal last
        # A message may be missed if it is published before the listener runs.
        polls = [
            executor.submit(poll, client, port, channel, last)
            for _ in range(POLLS)]
        while not all(poll.done() for poll in polls):
            id_, = publish(database, channel, {'type': 'x'})
            for process, message in (
                    p.result() for p in polls if p.done()):
                if message:
                    answered.add(process)
                    last = message['message_id']
        return len(answered) == 2

    with ThreadPoolExecutor(POLLS) as executor:
        wait_until(each_has_answered, 60)


@pytest.mark.parametrize('wsgi', [
        'trytond.application:app', 'wsgi:application'])
def test_each_worker_of_gunicorn_answers(
        wsgi, sections, database, channel, tmp_path):
    if wsgi == 'wsgi:application':
        sections['bus']['class'] = None
    with TrytondServer(
            tmp_path, sections, [database], kind='gunicorn', workers=2,
            threads=POLLS, wsgi=wsgi) as server:
        check_workers(server.port, database, channel)
        assert server.terminate() == 0
        assert 'Traceback' not in server.log, server.log
        assert 'SIGABRT' not in server.log, server.log


@pytest.mark.one_series
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize('kind', ['gthread', 'sync', 'gevent'])
def test_waiting_polls_end_with_their_worker_of_gunicorn(
        kind, number, sections, database, channel, tmp_path):
    server = TrytondServer(
        tmp_path, sections, [database], kind='gunicorn', workers=1,
        threads=POLLS)
    server.add('--worker-class', kind, '--graceful-timeout', '600')
    polls = 1 if kind == 'sync' else POLLS - 1
    with server, ThreadPoolExecutor(POLLS) as executor:
        client = TrytonClient(server.url, database, timeout=60)
        waiting = [
            executor.submit(poll, client, server.port, channel)
            for _ in range(polls)]
        wait_until(lambda: server.log.count("subscribe to '") == polls)
        server.signal(number)

        # Long before long_polling_timeout, and graceful_timeout after that
        ended = [each.result() for each in waiting]
        assert [message for _, message in ended] == [None] * polls
        if number == signal.SIGTERM:
            assert server.process.wait(50) == 0
        else:
            # The old worker may accept more polls until it ends.
            old = {process for process, _ in ended}
            process = message = None
            while not message or process in old:
                next_ = executor.submit(poll, client, server.port, channel)
                while not next_.done():
                    publish(database, channel, {'type': 'x'})
                    wait([next_], .1)
                process, message = next_.result()
        assert 'Traceback' not in server.log, server.log


@pytest.mark.one_series
@pytest.mark.skipif(not UWSGI, reason="install uwsgi")
@pytest.mark.parametrize('options', [
        ['--enable-threads', '--threads', str(POLLS)],
        ['--enable-threads'],
        ['--lazy-apps', '--threads', str(POLLS)],
        # Python's threads run only while a request is answered
        [],
        ], ids=' '.join)
def test_each_worker_of_uwsgi_answers(
        options, sections, database, channel, tmp_path):
    from support.postgresql import free_port
    port = free_port()
    config = write_config(tmp_path / 'trytond.conf', sections)
    log = tmp_path / 'log'
    with open(log, 'wb') as file:
        process = subprocess.Popen(
            [UWSGI, '--http-socket', f'127.0.0.1:{port}', '--master',
                '--processes', '2', '--need-app', '--die-on-term',
                '--virtualenv', sys.prefix, '--module',
                'trytond.application:app', *options],
            env=environment(
                TRYTOND_CONFIG=str(config), TRYTOND_DATABASE_NAMES=database),
            stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until(lambda: 'spawned uWSGI worker 2' in log.read_text(), 60)
        check_workers(port, database, channel)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert 'Traceback' not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()
