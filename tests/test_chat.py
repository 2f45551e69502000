"""A user gets the messages of a chat only if the user may read its record."""
import contextlib
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import Wire, drain, listen, publish
from support.client import TrytonClient
from support.modes import MODES, listened
from support.rooms import PATH, Rooms, activate
from support.server import BusServer, TrytondServer
from trytond_fastbus import settings

needs_chat = pytest.mark.skipif(
    not settings.has_chat(), reason="records have no chat in this series")

# The two ways in which trytond gets the bus, and the bus server
SERVERS = [*MODES, 'server']


@pytest.fixture(scope='module')
def rooms_database(postgresql, listening, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        path = [PATH, os.environ.get('PYTHONPATH')]
        patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, path)))
        directory = tmp_path_factory.mktemp('module')
        activate(postgresql.uri, listening, directory)
        yield listening


@pytest.fixture
def serve(postgresql, rooms_database, tmp_path):
    "Return a server of the rooms, of this kind and with these options"
    @contextlib.contextmanager
    def serve(kind, **options):
        database = rooms_database
        sections = {
            'database': {'uri': postgresql.uri},
            'bus': {
                'class': None if kind == 'stock' else 'trytond_fastbus.Bus',
                'select_timeout': 1, 'long_polling_timeout': 20,
                'session_cache': 1, **options},
            # Each process of trytond learns at once what another changes.
            'cache': {'clean_timeout': 0},
            }
        mode = MODES.get(kind, MODES['class'])
        with contextlib.ExitStack() as stack:
            trytond = stack.enter_context(TrytondServer(
                    tmp_path, sections, [database], **mode))
            bus = trytond
            if kind == 'server':
                bus = stack.enter_context(
                    BusServer(tmp_path, sections, [database]))
            rooms = Rooms(trytond, database)
            listened(
                TrytonClient(trytond.url, database, timeout=60, bus=bus.url),
                database)
            yield rooms, bus
    return serve


@needs_chat
@pytest.mark.parametrize('kind, check_access, is_open', [
        ('stock', None, True),
        ('class', None, False),
        ('class', False, True),
        ('install', None, False),
        ('server', None, True),
        ('server', True, False),
        ])
def test_chat_is_followed_by_users_that_may_read_the_record(
        serve, kind, check_access, is_open):
    with serve(kind, check_access=check_access) as (rooms, bus):
        reader = rooms.client(True, bus.url)
        stranger = rooms.client(False, bus.url)
        room, inactive = rooms.room(), rooms.room(active=False)
        of_another_language = rooms.room(language='fr')

        all_ = [room, inactive, of_another_language]
        assert rooms.follows(reader, *all_) == (
            all_ if is_open else [room, inactive])
        assert rooms.follows(stranger, *all_) == (all_ if is_open else [])


@needs_chat
@pytest.mark.parametrize('kind', SERVERS)
def test_right_counts_for_as_long_as_it_is_remembered(serve, kind):
    with serve(kind, check_access=True) as (rooms, bus):
        client, room = rooms.client(False, bus.url), rooms.room()
        for change, expected in [
                (lambda: None, []),
                (lambda: rooms.grant(client.user_id), [room]),
                (lambda: rooms.revoke(client.user_id), []),
                (lambda: rooms.grant(client.user_id), [room]),
                (lambda: rooms.deny_model(True), []),
                (lambda: rooms.deny_model(False), [room])]:
            change()
            wait_until(
                lambda expected=expected:
                rooms.follows(client, room) == expected)


@needs_chat
@pytest.mark.parametrize('kind', SERVERS)
def test_right_is_remembered(serve, kind):
    with serve(kind, check_access=True, session_cache=1000) as (rooms, bus):
        reader, room = rooms.client(True, bus.url), rooms.room()
        stranger = rooms.client(False, bus.url)
        assert rooms.follows(reader, room) == [room]
        assert rooms.follows(stranger, room) == []
        rooms.revoke(reader.user_id)
        rooms.grant(stranger.user_id)
        other = rooms.room()
        # Once the other room shows that the change is known
        wait_until(lambda: rooms.follows(stranger, rooms.room()))
        assert rooms.follows(reader, room, other) == [room]
        assert rooms.follows(stranger, room, other) == [other]


GARBAGE = [
    'chat:', 'chat:x', 'chat:,', 'chat:fastbus.room', 'chat:fastbus.room,',
    'chat:fastbus.room,-1', 'chat:fastbus.room,0', 'chat:fastbus.room,1,2',
    'chat:fastbus.room, 1', 'chat:fastbus.room,01', 'chat:fastbus.room,1.0',
    'chat:fastbus.room,999999999', 'chat:fastbus.room,2147483648',
    'chat:fastbus.room,9223372036854775807', 'chat:fastbus.room,' + '9' * 99,
    'chat:no.model,1', 'chat:ir.module.config_wizard.first,1',
    'chat:ir.model.print_model_graph.start,1', 'chat:fastbus_room,1',
    'chat:__class__,1', "chat:x' OR 1=1; DROP TABLE fastbus_room; --,1",
    'chat:%s,1', 'chat:\u00e9\U0001f600,1',
    'chat:fastbus.room,\u0661', 'chat:' + 'x' * 240 + ',1']


@needs_chat
@pytest.mark.parametrize('kind', SERVERS)
def test_name_that_is_no_chat_is_dropped(serve, kind):
    with serve(kind, check_access=True) as (rooms, bus):
        client, room = rooms.client(True, bus.url), rooms.room()
        for names in [GARBAGE, *([name] for name in GARBAGE)]:
            for name in names:
                publish(rooms.database, name, {'type': 'x'})
            publish(rooms.database, client.channel, {'type': 'end'})
            channel, message = client.poll(client.channel, *names)
            assert (channel, message['type']) == (client.channel, 'end')
        assert rooms.follows(client, room) == [room]
        for trace in ['Traceback', 'cannot be checked']:
            assert trace not in bus.log, bus.log


@needs_chat
@pytest.mark.parametrize('kind', SERVERS)
def test_chat_is_not_followed_while_access_can_not_be_checked(
        serve, kind, postgresql):
    with serve(kind, check_access=True, hold_time=2) as (rooms, bus):
        client, room = rooms.client(True, bus.url), rooms.room()
        with Wire(f'{postgresql.uri}/{rooms.database}') as wire:
            wire.execute('ALTER TABLE fastbus_room RENAME TO away')
            for _ in range(3):
                publish(rooms.database, room, {'type': 'secret'})
                publish(rooms.database, client.channel, {'type': 'end'})
                channel, message = client.poll(client.channel, room)
                if kind == 'server':
                    # The poll is held, because the answer is not known yet.
                    assert (channel, message) == (None, None)
                else:
                    assert channel == client.channel
            wire.execute('ALTER TABLE away RENAME TO fastbus_room')
        # The answer was not cached.
        publish(rooms.database, room, {'type': 'secret'})
        channel, message = client.poll(room)
        assert (channel, message['type']) == (room, 'secret')
        assert bus.log.count('cannot be checked') == 1


@needs_chat
def test_poll_is_held_until_access_can_be_checked(serve, postgresql):
    with serve('server', check_access=True, hold_time=60) as (rooms, bus):
        client, room = rooms.client(True, bus.url), rooms.room()
        with Wire(f'{postgresql.uri}/{rooms.database}') as wire, \
                ThreadPoolExecutor() as executor:
            wire.execute('ALTER TABLE fastbus_room RENAME TO away')
            publish(rooms.database, room, {'type': 'x'})
            poll = executor.submit(client.poll, room)
            wait_until(lambda: 'cannot be checked' in bus.log)
            assert not poll.done()
            wire.execute('ALTER TABLE away RENAME TO fastbus_room')
            channel, _ = poll.result(60)
            assert channel == room


def test_series_without_chat_checks_nothing(database):
    "The module that made the channel defines its meaning."
    channels = ['user:1', 'chat:res.user,999', f'end:{uuid.uuid4()}']
    listen(database)
    publish(database, channels[1], {'type': 'chat'})
    publish(database, channels[2], {'type': 'end'})
    expected = ['end'] if settings.has_chat() else ['chat', 'end']
    got = drain(database, channels, len(expected))
    assert [message['type'] for message in got] == expected


def test_all_is_kept_of_a_call_without_a_user(database):
    listen(database)
    for channels in [['chat:x'], ['chat:res.user,1', 'user:1', 'user:2']]:
        publish(database, channels[0], {'type': 'chat'})
        message, = drain(database, channels, 1)
        assert message['type'] == 'chat'


@needs_chat
def test_unknown_user_may_read_nothing(database):
    listen(database)
    for user in ['', 'x', '-1', '99999', str(2 ** 40)]:
        end = f'end:{uuid.uuid4()}'
        publish(database, 'chat:res.user,1', {'type': 'chat'})
        publish(database, end, {'type': 'end'})
        channels = [f'user:{user}', 'chat:res.user,1', end]
        message, = drain(database, channels, 1)
        assert message['type'] == 'end'


@needs_chat
def test_question_does_not_wait_for_the_modules_of_another_database(
        database, monkeypatch):
    from trytond.pool import Pool
    from trytond_fastbus import access
    monkeypatch.setattr(access, 'LOCK_TIMEOUT', .1)
    loading, loaded = threading.Event(), threading.Event()

    def load():
        # As trytond does in Pool.init
        with Pool._lock:
            loading.set()
            assert loaded.wait(60)

    def ask():
        return access.readable(database, 99999, ['chat:res.user,1'])

    assert ask() == []
    with ThreadPoolExecutor() as executor:
        other = executor.submit(load)
        assert loading.wait(60)
        try:
            assert executor.submit(ask).result(30) is None
        finally:
            loaded.set()
        other.result()
    assert ask() == []


@needs_chat
def test_queries_are_as_many_as_the_models(
        postgresql, database, monkeypatch):
    import psycopg
    from trytond_fastbus import access
    executed = []
    execute = psycopg.Cursor.execute
    this_thread = threading.get_ident()

    def count(self, query, *args, **kwargs):
        # Others listen to the database, and delete old rows.
        if threading.get_ident() == this_thread:
            executed.append(query)
        return execute(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, 'execute', count)

    with Wire(f'{postgresql.uri}/{database}') as wire:
        user, = wire.query("SELECT id FROM res_user WHERE login = 'admin'")
    own = f'chat:res.user,{user}'

    def queries(*others):
        access.readable(database, user, [own, *others])  # fills caches
        del executed[:]
        assert access.readable(database, user, [own, *others]) == [own]
        return len(executed)

    one = queries()
    assert one > 0
    ids = range(999, 1254)
    assert queries(*(f'chat:res.user,{id_}' for id_ in ids)) == one
    assert queries(*(f'chat:res.group,{id_}' for id_ in ids)) == one + 1
