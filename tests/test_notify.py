"""notify: its receivers, and the class through which it publishes."""
import inspect

import pytest
import trytond.bus
from support import overriding
from support.bus import received
from trytond.transaction import Transaction
from trytond_fastbus import notify


@pytest.fixture
def transaction(listening):
    with Transaction().start(listening, 1) as transaction:
        yield transaction


@pytest.fixture
def published(monkeypatch):
    "The published messages, as pairs of channel and message"
    published = []

    class Bus:
        @classmethod
        def publish(cls, channel, message):
            published.append((channel, message))
            return 'returned'

    monkeypatch.setattr(trytond.bus, 'Bus', Bus)
    return published


@pytest.mark.parametrize('user, context, arguments, channel', [
        (1, {}, {'client': 'x'}, 'client:x'),
        (1, {}, {'user': 2}, 'user:2'),
        (1, {}, {'user': 2, 'client': 'x'}, 'client:x'),
        (1, {'client': 'y'}, {}, 'client:y'),
        (1, {'client': 'y'}, {'user': 2}, 'user:2'),
        (1, {'client': 'y'}, {'client': 'x'}, 'client:x'),
        (0, {'client': 'y'}, {}, 'client:y'),
        # The current user, unless that is root, which never logs in
        (1, {}, {}, 'user:1'),
        (1, {'client': None}, {}, 'user:1'),
        (0, {'user': 1}, {}, 'user:1'),
        (2, {'user': 1}, {}, 'user:2'),
        (0, {'user': 0}, {}, None),
        (0, {}, {}, None),
        (0, {}, {'user': 0}, 'user:0'),
        ])
def test_channel(listening, published, user, context, arguments, channel):
    with Transaction().start(listening, user, context=context):
        result = notify("Title", "Body", 2, **arguments)
    if channel is None:
        assert published == [] and result is None
    else:
        assert result == 'returned'
        assert published == [(channel, {
                    'type': 'notification',
                    'title': "Title",
                    'body': "Body",
                    'priority': 2,
                    })]


def test_body_and_priority_have_defaults(transaction, published):
    notify("Title", client='x')
    assert published[0][1] == {
        'type': 'notification', 'title': "Title", 'body': None, 'priority': 1}
    assert str(inspect.signature(notify)) == (
        '(title, body=None, priority=1, user=None, client=None)')


@pytest.mark.parametrize('priority', [-1, 4, 10 ** 6])
def test_priority_that_clients_do_not_know_is_refused(
        transaction, published, priority):
    with pytest.raises(ValueError, match=f'not {priority}$'):
        notify("Title", priority=priority, client='x')
    assert published == []


def test_priority_that_is_no_number_is_refused(transaction, published):
    with pytest.raises(TypeError, match='priority'):
        notify("Title", priority='high', client='x')
    assert published == []


def test_it_goes_through_the_configured_class(
        listening, channel, monkeypatch):
    monkeypatch.setattr(trytond.bus, 'Bus', overriding.Bus)
    with Transaction().start(listening, 1):
        notify("Title", client=channel)
    message, = received(listening, f'client:{channel}')
    assert message['published'] == 'Bus' and message['title'] == "Title"


def test_without_a_transaction_it_is_refused():
    with pytest.raises(RuntimeError, match="no transaction"):
        notify("Title")
