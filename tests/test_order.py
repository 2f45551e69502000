"""All processes deliver in the order of commits, and of publish."""
import random
import threading

import pytest
from support.bus import drain, publish
from support.peer import Peer
from trytond.bus import Bus
from trytond.transaction import Transaction

THREADS, TRANSACTIONS = 8, 40


@pytest.fixture(scope='module')
def peer(postgresql, listening):
    with Peer({'database': {'uri': postgresql.uri}}) as peer:
        peer.call('listen', listening)
        yield peer


def ids(messages):
    return [message['message_id'] for message in messages]


def test_order_within_a_transaction(listening, channel, peer):
    sent = publish(
        listening, channel, *({'number': number} for number in range(1000)))

    here = drain(listening, [channel], 1000)
    assert ids(here) == sent
    assert [message['number'] for message in here] == list(range(1000))
    assert peer.call('drain', listening, [channel], 1000) == here


def test_order_across_channels(listening, channel, peer):
    channels = [f'{channel}:{number}' for number in range(3)]
    sent = []
    with Transaction().start(listening, 0):
        for number in range(300):
            Bus.publish(
                channels[number % 7 % 3], message := {'number': number})
            sent.append(message['message_id'])

    assert ids(drain(listening, channels, 300)) == sent
    assert ids(peer.call('drain', listening, channels, 300)) == sent


def test_order_across_committing_threads(listening, channel, peer):
    committing = threading.Lock()
    order = []

    def commit_again(seed):
        chance = random.Random(seed)
        for _ in range(TRANSACTIONS):
            with Transaction().start(listening, 0) as transaction:
                messages = []
                for _ in range(chance.randint(1, 4)):
                    # Large messages are sent in another way.
                    text = 'x' * chance.choice([1, 100, 20_000])
                    messages.append({'text': text})
                    Bus.publish(channel, messages[-1])
                with committing:
                    transaction.commit()
                    order.extend(ids(messages))

    threads = [
        threading.Thread(target=commit_again, args=(seed,))
        for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    # The process is polled meanwhile.
    here = drain(listening, [channel], THREADS * TRANSACTIONS)
    for thread in threads:
        thread.join()
    here += drain(
        listening, [channel], len(order) - len(here), ids(here)[-1])

    assert ids(here) == order
    assert ids(peer.call('drain', listening, [channel], len(order))) == order


def test_order_without_a_lock_is_the_same_in_each_process(
        listening, channel, peer):
    def commit_again():
        for number in range(TRANSACTIONS):
            publish(listening, channel, {'number': number}, {'number': -1})

    threads = [
        threading.Thread(target=commit_again) for _ in range(THREADS)]
    count = THREADS * TRANSACTIONS * 2
    peer.start('drain', listening, [channel], count)
    for thread in threads:
        thread.start()
    here = drain(listening, [channel], count)
    for thread in threads:
        thread.join()

    assert peer.result() == here
    assert len(set(ids(here))) == count
