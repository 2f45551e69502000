"""Retained messages are bounded, and nothing else is kept."""
import pytest
from support import wait_until
from support.bus import Polls, Wire, drain, listen, publish, statistics
from support.peer import Peer

pytestmark = pytest.mark.one_series

CHANNELS = 100_000
# The memory of 20 bytes for each channel
GROWTH = CHANNELS * 20
# The memory that the allocator keeps varies by round. A leak is in each round.
ROUNDS = 'abcdefgh'

PUBLISH = """
SELECT count(pg_notify('bus', format(
    '{"channel":"%%1$s:%%2$s","message":{"message_id":"%%1$s:%%2$s"}}',
    %s::text, n)))
FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def peer(postgresql, database):
    "A process for this test only"
    with Peer({
                'database': {'uri': postgresql.uri},
                'bus': {
                    'cache_timeout': 2, 'select_timeout': 1},
                }) as peer:
        peer.call('end_polls_at_once')
        peer.call('listen', database)
        yield peer


def assert_settles(resident):
    "Assert that a round needs no more memory than one before it"
    sizes = []
    for name in ROUNDS:
        sizes.append(resident(name))
        if len(sizes) > 1 and sizes[-1] < max(sizes[:-1]) + GROWTH:
            return
    pytest.fail(f"grows in each round: {sizes}")


def test_channels_without_listeners_leave_nothing(
        postgresql, database, peer):
    published = 0

    def publish_to_all(name):
        nonlocal published
        wire.execute(PUBLISH, name, CHANNELS)
        published += CHANNELS
        wait_until(
            lambda: peer.call('statistics', database)['published']
            >= published, 60)
        wait_until(
            lambda: peer.call('statistics', database)['retained'] == 0, 60)
        return peer.call('resident')

    with Wire(f'{postgresql.uri}/{database}') as wire:
        assert_settles(publish_to_all)

    assert peer.call('statistics', database)['bytes'] == 0


def test_polls_leave_nothing(database, peer):
    def poll_all(name):
        peer.call('poll', database, name, CHANNELS)
        return peer.call('resident')

    assert_settles(poll_all)

    assert peer.call('statistics', database)['waiting'] == 0


def test_bytes_are_bounded(configure, database):
    limit = 100_000
    configure('bus', cache_size=limit)
    listen(database)
    last = None
    for number in range(50):
        sent = publish(
            database, 'c', *({'text': 'x' * 1000} for _ in range(20)))
        last = drain(database, ['c'], 20, last)[-1]['message_id']
        assert last == sent[-1]

        state = statistics(database)
        assert limit / 2 < state['bytes'] <= limit or number < 3
    assert state['retained'] < limit / 1000
    assert state['published'] >= 1000
    # The oldest message that is retained, not the oldest of all
    oldest, = drain(database, ['c'], 1)
    assert oldest['message_id'] != sent[0]


def test_poll_that_ends_leaves_no_waiter(configure, database):
    listen(database)
    configure('bus', long_polling_timeout=1)

    with Polls(database, ['c', 'd', 'c'], 10) as polls:
        wait_until(lambda: statistics(database)['waiting'] == 10)

    assert polls.results == [{'message': None, 'channel': None}] * 10
    assert statistics(database)['waiting'] == 0
