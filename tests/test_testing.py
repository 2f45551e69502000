"""trytond_fastbus.testing records the messages of a block, committed or not.
"""
import pytest
from trytond.transaction import Transaction
from trytond_fastbus.testing import Published, published


def test_published_messages_are_recorded(database):
    from trytond.bus import Bus, notify
    message = {'type': 'reminder', 'number': 1}
    with published() as messages, Transaction().start(database, 0):
        Bus.publish('user:1', message)
        notify("Title", "Body", priority=2, user=1)
        Transaction().rollback()
    assert message['message_id']
    assert messages == [
        ('user:1', {'type': 'reminder', 'number': 1}),
        ('user:1', {
                'type': 'notification', 'title': "Title", 'body': "Body",
                'priority': 2}),
        ]
    assert isinstance(messages[0], Published)


def test_nothing_is_recorded_after_the_block(database):
    from trytond.bus import Bus
    publish = Bus.publish
    with pytest.raises(KeyError):
        with published() as messages:
            raise KeyError
    with Transaction().start(database, 0):
        Bus.publish('user:1', {'type': 'x'})
    assert messages == []
    assert Bus.publish == publish


def test_message_that_is_refused_is_not_recorded(database):
    from trytond.bus import Bus
    with published() as messages, Transaction().start(database, 0):
        with pytest.raises(TypeError):
            Bus.publish(None, {})
    assert messages == []
