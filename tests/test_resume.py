"""A client resumes after its last message, regardless of the type of its id.
"""
import pytest
from support import wait_until
from support.bus import (
    Wire,
    drain,
    listen,
    payload,
    publish,
    received,
    statistics,
)
from trytond.bus import Bus

pytestmark = pytest.mark.one_series

NEVER_AN_ID = [
    0, 1, -1, 2 ** 64, 10 ** 400, 10 ** 5000, 0.5, -0.0, 1e300, float('nan'),
    float('inf'), True, False, '', 'x', 'null', '\0', '\ud800', "é" * 10_000,
    [], ['a', [1]], {}, {'message_id': 'a'}, [[[[]]] * 100] * 100,
    # From Python, not from JSON
    b'', object(), (), set(),
    ]


@pytest.fixture
def ids(listening, channel):
    "The ids of messages in the channels a, b, c, a, b, c, ..."
    return [
        id_ for number in range(9)
        for id_ in publish(
            listening, f'{channel}:{"abc"[number % 3]}',
            {'type': 'test', 'number': number})]


@pytest.fixture
def following(listening, channel, ids):
    "Return the number of the message after the last one"
    def following(last, channels):
        return Bus.subscribe(
            listening, [f'{channel}:{name}' for name in channels], last
            )['message']['number']

    assert drain(listening, [f'{channel}:c'], 3)[-1]['message_id'] == ids[-1]
    return following


@pytest.mark.parametrize('last, channels, number', [
        (0, 'abc', 1),
        (0, 'a', 3),
        (3, 'cb', 4),
        # In a channel that is no longer asked
        (0, 'c', 2),
        (4, 'a', 6),
        (7, 'c', 8),
        ])
def test_next_is_the_one_after_the_last(
        following, ids, last, channels, number):
    assert following(ids[last], channels) == number


@pytest.mark.parametrize('last', [7, 8])
def test_last_in_another_channel_replays_nothing(
        following, listening, channel, ids, last):
    assert received(listening, f'{channel}:a', last=ids[last]) == []


@pytest.mark.parametrize('channels, number', [('abc', 0), ('cb', 1)])
def test_none_is_answered_with_the_oldest(following, channels, number):
    assert following(None, channels) == number


@pytest.mark.parametrize('last', NEVER_AN_ID, ids=lambda v: type(v).__name__)
def test_unknown_id_is_answered_with_the_oldest(following, last):
    assert following(last, 'bc') == 1


def test_uuid_in_another_form_is_unknown(following, ids):
    for last in [ids[4].upper(), ids[4].replace('-', ''), ids[4] + ' ']:
        assert following(last, 'bc') == 1


def test_circular_id_is_unknown(following):
    last = []
    last.append(last)

    assert following(last, 'bc') == 1


@pytest.mark.parametrize('id_, last', [
        (1, 1), (1, 1.0), ('1', '1'), ([1, 'é'], [1, 'é']),
        ({'a': 1, 'b': 2}, {'b': 2, 'a': 1}), (0.1, 0.1),
        ('\ud800', '\ud800'), (2 ** 70, 2 ** 70), ('', ''), (False, 0),
        ], ids=repr)
def test_id_of_another_publisher_may_be_any_value(
        postgresql, listening, channel, id_, last):
    messages = [
        {'message_id': 'before'}, {'message_id': id_},
        {'message_id': 'after'}]
    with Wire(f'{postgresql.uri}/{listening}') as wire:
        wire.notify([('bus', payload(channel, m)) for m in messages])

    drain(listening, [channel], 1)
    assert drain(listening, [channel], 1, last) == messages[2:]


def test_expired_message_is_unknown_and_not_returned(configure, database):
    configure('bus', cache_timeout=3)
    listen(database)
    first, = publish(database, 'a', {})
    drain(database, ['a'], 1)
    wait_until(lambda: statistics(database)['retained'] == 0)

    second, third = publish(database, 'a', {}, {})

    drain(database, ['a'], 2)
    for last, expected in [(None, second), (first, second), (second, third)]:
        message, = drain(database, ['a'], 1, last)
        assert message['message_id'] == expected
