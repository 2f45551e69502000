"""Each client of a user shows the user's notification, although it looks at
its own channel only."""
import pytest
from support.bus import publish
from support.client import TrytonClient
from support.modes import MODES, listened, serve
from trytond.bus import Bus, notify
from trytond.transaction import Transaction


def notify_user(database, user, title):
    with Transaction().start(database, 0):
        notify(title, "Body", 2, user=user)


def content(title):
    return {
        'type': 'notification', 'title': title, 'body': "Body", 'priority': 2}


@pytest.mark.parametrize('relay_user', [None, True, False])
@pytest.mark.parametrize('mode', MODES)
def test_client_is_answered_on_its_own_channel(
        mode, relay_user, postgresql, database, tmp_path):
    with serve(
            mode, tmp_path, postgresql.uri, database,
            relay_user=relay_user) as server:
        clients = [
            TrytonClient(server.url, database, timeout=60) for _ in range(2)]
        listened(clients[0], database)
        user = f'user:{clients[0].user_id}'
        relayed = relay_user is not False

        notify_user(database, clients[0].user_id, "Hello")
        for client in clients:
            for asked in [(), (client.channel, 'chat:a')]:
                client.last_message = None
                channel, message = client.poll(*asked)
                assert channel == (client.channel if relayed else user)
                assert client.last_message == message.pop('message_id')
                assert message == content("Hello")

        # The poll does not identify the client.
        for asked in [
                [clients[0].channel, clients[1].channel], ['chat:a'], [user]]:
            clients[0].last_message = None
            channel, message = clients[0].poll(*asked)
            assert (channel, message['title']) == (user, "Hello")

        # The next message is found after it.
        publish(database, user, {'type': 'other'})
        publish(database, clients[0].channel, {'type': 'notification'})
        assert clients[0].poll()[0] == user
        assert clients[0].poll()[0] == clients[0].channel


@pytest.mark.parametrize('published, message, asked, answered', [
        ('user:1', 'notification', ['user:1', 'client:a'], 'client:a'),
        ('user:1', 'notification', ['client:a', 'chat:b', 'user:1'],
            'client:a'),
        ('user:1', 'notification', ['user:1', 'client:a', 'client:b'],
            'user:1'),
        ('user:1', 'notification', ['user:1'], 'user:1'),
        ('user:1', 'other', ['user:1', 'client:a'], 'user:1'),
        ('notification:1', 'notification',
            ['user:1', 'notification:1', 'client:a'], 'notification:1'),
        ('client:a', 'notification', ['user:1', 'client:a'], 'client:a'),
        ('chat:b', 'notification', ['chat:b', 'client:a'], 'chat:b'),
        ])
@pytest.mark.parametrize('relay_user', [True, False])
def test_only_the_channel_changes(
        published, message, asked, answered, relay_user, listening,
        configure):
    configure('bus', relay_user=relay_user)
    Bus._messages.clear()
    id_, = publish(listening, published, {'type': message, 'a': [1]})

    assert Bus.subscribe(listening, asked) == {
        'message': {'type': message, 'a': [1], 'message_id': id_},
        'channel': answered if relay_user else published,
        }
