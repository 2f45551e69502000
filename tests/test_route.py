"""Polls over HTTP of a real trytond, with the class and with the stand-in."""
import json
import socket
from urllib.error import HTTPError
from urllib.request import Request

import pytest
from support import wait_until
from support.bus import Wire, publish
from support.client import TrytonClient
from support.insight import look
from support.modes import MODES, listened
from support.server import TrytondServer


def make(postgresql, database, directory, mode, **options):
    "A server of the database in this mode, with these options of [bus]"
    class_ = 'trytond_fastbus.Bus' if mode == 'class' else None
    sections = {
        'database': {'uri': postgresql.uri},
        'bus': {
            'class': class_, 'select_timeout': 1,
            'long_polling_timeout': 20, **options},
        'wsgi middleware': {
            'hangup': 'trytond_fastbus.hangup.Middleware',
            'insight': 'support.insight.insight'},
        }
    return TrytondServer(directory, sections, [database], **MODES[mode])


@pytest.fixture
def serve(postgresql, database, tmp_path):
    "Return a server of this test, in this mode"
    return lambda mode, **options: make(
        postgresql, database, tmp_path, mode, **options)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def status(client, body, **headers):
    "Return the status of a poll with this body"
    request = Request(
        client.url + '/bus', data=body,
        headers={**client._headers, **headers})
    try:
        with client._opener.open(request, timeout=60) as response:
            return response.status
    except HTTPError as error:
        error.close()
        return error.code


def test_poll_is_answered(serve, mode, database):
    with serve(mode) as server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)
        own = {'type': 'notification', 'title': "Hello", 'body': None}
        ids = publish(database, client.channel, own, {'type': 'other'})

        assert client.poll() == (client.channel, own)
        assert client.poll()[1]['message_id'] == ids[1]

        # A client that asks for the channels of another user gets its own
        # only.
        user, other = client.user_id, client.user_id + 1
        others = [f'user:{other}', f'notification:{other}']
        for channel in others:
            publish(database, channel, {'type': 'notification'})
        id_, = publish(database, f'notification:{user}', {'type': 'x'})
        channel, message = client.poll(
            client.channel, f'notification:{user}', *others)
        assert (channel, message['message_id']) == (
            f'notification:{user}', id_)

        # A notification to the user is shown by its client.
        id_, = publish(
            database, f'user:{user}', {'type': 'notification', 'title': "x"})
        channel, message = client.poll()
        assert (channel, message['message_id']) == (client.channel, id_)
        assert client.post('/bus', {
                'channels': [client.channel, 'client:other'],
                'last_message': ids[1],
                })['channel'] == f'user:{user}'


@pytest.mark.parametrize('last', [
        None, 0, 1.5, True, '', 'x', [], [{}], {},
        {'__class__': 'date', 'year': 1, 'month': 1, 'day': 1}])
def test_last_message_of_any_type_is_unknown(last, poller, listening):
    client = poller
    id_, = publish(listening, client.channel, {'type': 'x'})
    client.last_message = last
    assert client.poll()[1]['message_id'] == id_


@pytest.fixture(scope='module')
def shared(postgresql, listening, tmp_path_factory):
    "A server in the mode install, for tests that do not change it"
    directory = tmp_path_factory.mktemp('shared')
    with make(postgresql, listening, directory, 'install') as server:
        listened(TrytonClient(server.url, listening, timeout=60), listening)
        yield server


@pytest.fixture
def poller(shared, listening):
    "A client of that server"
    return TrytonClient(shared.url, listening, timeout=60)


def test_bad_request_is_answered_400(serve, mode, database):
    with serve(mode) as server:
        poller = TrytonClient(server.url, database, timeout=60)
        for body in [
                b'', b'x', b'[]', b'"x"', b'1', b'null', b'{', b'\xff',
                b'{"channels": "x"}', b'{"channels": {"x": 1}}',
                b'{"channels": [1]}', b'{"channels": [["x"]]}',
                b'{"channels": null}',
                json.dumps({'channels': ['x'] * 10_001}).encode()]:
            assert status(poller, body) == 400, body
        assert status(poller, b'<a/>', **{'Content-Type': 'text/xml'}) in {
            400, 415}
        assert status(poller, b'x', **{'Content-Type': 'text/plain'}) == 400
        assert 'Traceback' not in server.log


def test_stranger_is_answered_401(poller):
    for session in ['Session YWRtaW46MTp4', 'Session x', 'Basic YTpi']:
        assert status(poller, b'{}', Authorization=session) == 401


def test_message_is_answered_as_it_was_published(
        poller, postgresql, listening):
    message = (
        '{"type":"x",  "message_id":"1", "e":1.10e1,"n":NaN,"s":"\\ud800",'
        '"i":100000000000000000000,"d":{"__class__":"date","year":1}}')
    plain = message.replace('NaN', 'null').replace('\\ud800', '\\u00e9')
    with Wire(f'{postgresql.uri}/{listening}') as wire:
        wire.notify([
                ('bus', '{"channel":"%s","message":%s}' % (
                        poller.channel, plain))])
    request = Request(
        poller.url + '/bus', headers=poller._headers,
        data=json.dumps({'channels': [poller.channel]}).encode())
    with poller._opener.open(request, timeout=60) as response:
        assert response.headers['Content-Type'] == 'application/json'
        assert response.read().decode() == (
            '{"message":%s,"channel":"%s"}' % (plain, poller.channel))


def test_subscribing_can_be_disallowed(serve, mode, database):
    with serve(mode, allow_subscribe=False) as server:
        client = TrytonClient(server.url, database, timeout=60)
        assert status(client, b'{"channels": []}') == 501


def test_bus_elsewhere(serve, database, series):
    with serve('install', url_host='http://elsewhere:1/') as server:
        client = TrytonClient(server.url, database, timeout=60)
        with socket.create_connection(('127.0.0.1', server.port)) as bus:
            body = b'{}'
            bus.sendall((
                    f'POST /{database}/bus HTTP/1.0\r\n'
                    f'Content-Length: {len(body)}\r\n' + ''.join(
                        f'{name}: {value}\r\n'
                        for name, value in client._headers.items())
                    + '\r\n').encode() + body)
            answer = bus.makefile('rb').read().decode()
    if float(series) < 7.8:
        assert answer.split()[1] == '308'
        assert f'Location: http://elsewhere:1/{database}/bus' in answer
    else:
        assert answer.split()[1] == '401'


def test_last_slash_of_url_host_may_be_left_out(serve, database):
    # The port is known once the server is made.
    server = serve('install', url_host='http://127.0.0.1:PORT')
    config = server._environ['TRYTOND_CONFIG']
    with open(config) as file:
        text = file.read().replace('PORT', str(server.port))
    with open(config, 'w') as file:
        file.write(text)
    with server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)


def test_response_of_a_subclass_is_honoured(serve, mode, database):
    with serve(mode, **{'class': 'support.overriding.Bus'}) as server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)
        publish(database, client.channel, {'type': 'x'})
        response = client.post('/bus', {'channels': [client.channel]})
        assert response['created'] == 1
        assert response['subscribed'] == 'Bus'


def abandon(client, count):
    "Send polls, and disconnect before they are answered"
    body = '{"channels": ["gone"]}'
    polls = [
        socket.create_connection(client.url.split('/')[2].split(':'))
        for _ in range(count)]
    for poll in polls:
        poll.sendall((
                f'POST /{client.url.split("/")[3]}/bus HTTP/1.1\r\n'
                f'Host: x\r\nContent-Length: {len(body)}\r\n' + ''.join(
                    f'{name}: {value}\r\n'
                    for name, value in client._headers.items())
                + f'\r\n{body}').encode())
    return polls


def test_thread_of_a_client_that_has_gone_ends(serve, database):
    with serve('class', long_polling_timeout=10_000) as server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)

        polls = abandon(client, 20)
        wait_until(lambda: look(server)['waiting'] == 20, 60)
        threads = look(server)['threads']
        for poll in polls:
            poll.close()
        wait_until(lambda: look(server)['waiting'] == 0, 60)
        # Other threads, such as psycopg's, may have started meanwhile.
        wait_until(lambda: look(server)['threads'] <= threads - 10, 60)


def test_workers_of_clients_that_have_gone_are_free(serve, database):
    with serve('install', long_polling_timeout=10_000) as server:
        client = TrytonClient(server.url, database, timeout=60)
        listened(client, database)
        for _ in range(3):
            # One poll for each thread
            for poll in abandon(client, 8):
                poll.close()
        publish(database, client.channel, {'type': 'x'})
        assert client.poll()[1]
