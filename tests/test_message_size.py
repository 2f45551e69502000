"""Messages of any size up to the limit are delivered."""
import json

import pytest
from support.bus import Wire, drain, listen, payload, publish, statistics
from trytond.bus import Bus
from trytond.transaction import Transaction
from trytond_fastbus import _native

LIMIT = 1024 * 1024
ID = 'x' * 36


def sized(channel, size, text='x'):
    "Return a message whose payload has this number of bytes"
    message = {'message_id': ID, 'text': ''}
    left = size - len(payload(channel, message))
    count, rest = divmod(left, len(json.dumps(text)) - 2)
    message['text'] = text * count + '.' * rest
    assert len(payload(channel, message)) == size
    return message


def parts(channel, message):
    "Return the number of parts of the message, 0 if it is sent whole"
    whole = payload(channel, message)
    return len(_native.split(whole)) if len(whole) > 7_999 else 0


@pytest.fixture
def wire(postgresql, listening):
    "A connection that listens to both channels of PostgreSQL"
    with Wire(f'{postgresql.uri}/{listening}') as wire:
        yield wire.listen('bus', 'bus.part')


@pytest.mark.parametrize('text', ['x', 'é', '😀', '"', '\0'])
@pytest.mark.parametrize(
    'size', [7_998, 7_999, 8_000, 8_001, 100_000, 1_000_000, LIMIT])
def test_message_is_delivered(listening, channel, wire, size, text):
    message = sized(channel, size, text)

    publish(listening, channel, message)

    assert drain(listening, [channel], 1) == [message]
    # Stock processes miss only messages that are too large for a NOTIFY.
    count = parts(channel, message)
    notified = wire.receive(count or 1)
    assert bool(count) == (size >= 8_000)
    assert {name for name, _ in notified} == {'bus.part' if count else 'bus'}
    assert count or notified[0][1] == payload(channel, message)


def test_large_and_small_ones_stay_in_order(listening, channel):
    sizes = [200, 8_000, 7_999, 1_000_000, 200, 200, 100_000, 8_000, 7_999]
    messages = [sized(channel, size) for size in sizes * 3]

    publish(listening, channel, *messages)

    assert drain_all(listening, channel, len(messages)) == messages


def drain_all(database, channel, count):
    "Return this number of messages, and assert that there are no others"
    messages = drain(database, [channel], count)
    last = messages[-1]['message_id']
    mark, = publish(database, channel, {'type': 'mark'})
    after, = drain(database, [channel], 1, last)
    assert after['message_id'] == mark
    return messages


def test_equal_large_messages_of_a_transaction_all_arrive(
        listening, channel):
    message = {'text': 'x' * 100_000}
    with Transaction().start(listening, 0):
        for _ in range(3):
            Bus.publish(channel, message)

    messages = drain_all(listening, channel, 3)
    assert [m['text'] for m in messages] == [message['text']] * 3
    assert len({m['message_id'] for m in messages}) == 3


@pytest.mark.parametrize('text', ['x', 'é'])
@pytest.mark.parametrize('limit', [None, 1_000])
def test_larger_message_is_refused_before_anything_is_sent(
        configure, listening, channel, wire, text, limit):
    configure('bus', message_size=limit)
    limit = limit or LIMIT
    fits, small = sized(channel, limit, text), {'type': 'small'}
    with Transaction().start(listening, 0) as transaction:
        Bus.publish(channel, small)
        with pytest.raises(ValueError, match=f' {limit + 1} .* {limit}$'):
            Bus.publish(channel, sized(channel, limit + 1, text))
        # The transaction can still commit.
        transaction.connection.cursor().execute('SELECT 1')
        Bus.publish(channel, fits)

    assert drain_all(listening, channel, 2) == [small, fits]
    count = parts(channel, fits)
    notified = wire.receive(1 + (count or 1) + 1)
    assert [name for name, _ in notified] == [
        'bus', *(['bus.part'] * count or ['bus']), 'bus']


def test_message_larger_than_the_cache_is_delivered(
        configure, database, channel):
    configure('bus', cache_size=10_000)
    listen(database)
    message = sized(channel, 100_000)

    publish(database, channel, message)

    assert drain(database, [channel], 1) == [message]
    assert statistics(database)['skipped'] == 0
