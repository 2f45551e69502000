"""A client never receives messages of a channel of another user."""
import pytest
from support.bus import drain, publish
from support.client import TrytonClient
from support.modes import MODES, listened, serve

OTHER = {'name': "Other", 'login': 'other', 'password': 'vrPX8g2nQy'}


def kinds(messages):
    return [message['type'] for message in messages]


@pytest.mark.parametrize('mode', MODES)
def test_user_gets_own_channels_and_not_those_of_another(
        mode, postgresql, database, tmp_path):
    with serve(mode, tmp_path, postgresql.uri, database) as server:
        admin = TrytonClient(server.url, database, timeout=60)
        other_id, = admin.rpc('model.res.user.create', [OTHER], {})
        other = TrytonClient(
            server.url, database, OTHER['login'], OTHER['password'],
            timeout=60)
        assert admin.user_id != other.user_id == other_id
        listened(admin, database)
        for client in [admin, other]:
            for channel in ['user', 'notification']:
                publish(
                    database, f'{channel}:{client.user_id}',
                    {'type': f'{channel} of {client.user}'})
        publish(database, 'end:a', {'type': 'end'})

        # Any other message would have arrived before the end.
        asked = [
            f'{channel}:{client.user_id}' for client in [admin, other]
            for channel in ['user', 'notification']] + ['end:a']
        for client in [admin, other]:
            got = [client.poll(*asked) for _ in range(3)]
            assert kinds(message for _, message in got) == [
                f'user of {client.user}', f'notification of {client.user}',
                'end']
            assert [channel for channel, _ in got] == [
                f'user:{client.user_id}', f'notification:{client.user_id}',
                'end:a']


@pytest.mark.parametrize('asked, got', [
        (['user:1', 'notification:1'], ['1']),
        (['user:1', 'notification:2'], []),
        (['user:1', 'notification:1', 'notification:2'], ['1']),
        (['user:1', 'notification:11', 'notification:'], []),
        # The user is unknown.
        (['notification:1', 'notification:2'], ['1', '2']),
        (['user:1', 'user:2', 'notification:2'], ['2']),
        ])
@pytest.mark.parametrize('collection', [list, tuple, set, frozenset])
def test_one_user_channel_identifies_the_user(
        asked, got, collection, listening, channel):
    for user in '1', '2', '11', '':
        publish(listening, f'notification:{user}', {'type': user})
    publish(listening, channel, {'type': 'end'})

    last, messages = None, []
    while kinds(messages[-1:]) != ['end']:
        messages += drain(
            listening, collection([*asked, channel]), 1, last)
        last = messages[-1]['message_id']

    # The messages of earlier cases are still retained.
    assert sorted(set(kinds(messages))) == sorted([*got, 'end'])
