"""No message is late because it arrived while a client subscribed."""
import queue
import random
import sys
import threading
import time

import pytest
from support.bus import Wire, listen, payload, publish
from trytond.bus import Bus
from trytond_fastbus import listener, settings

CLIENTS, ROUNDS = 8, 1250  # 10,000 subscribes


@pytest.fixture
def eager_threads():
    "Threads take turns at almost any moment"
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.one_series
def test_subscribes_that_race_with_publishes(
        configure, eager_threads, database, channel):
    """A missed message would be found at the next one, but that is published
    only when every client has got this one. So its poll would time out."""
    configure('bus', long_polling_timeout=30)
    listen(database)
    got = queue.Queue()
    clients = [[] for _ in range(CLIENTS)]

    def subscribe_again(ids):
        chance = random.Random()
        last = None
        while len(ids) < ROUNDS:
            message = Bus.subscribe(database, [channel], last)['message']
            last = message and message['message_id']
            ids.append(last)
            got.put(last)
            if last is None:
                return
            # The next message arrives at different moments of the subscription
            time.sleep(chance.uniform(0, 2e-3))

    threads = [
        threading.Thread(target=subscribe_again, args=(ids,), daemon=True)
        for ids in clients]
    for thread in threads:
        thread.start()
    published = []
    for number in range(ROUNDS):
        published += publish(
            database, channel, {'number': number}, autocommit=True)
        for _ in range(CLIENTS):
            assert got.get(timeout=60) == published[-1]
    for thread in threads:
        thread.join()

    for ids in clients:
        assert ids == published


def test_message_that_arrives_while_the_listener_starts(
        configure, monkeypatch, postgresql, database, channel):
    configure('bus', long_polling_timeout=30, select_timeout=60)
    sent = []

    class SecondChannel(str):
        "Is put into SQL when LISTEN for the first channel is executed"

        def __str__(self):
            if not sent:
                sent.append({'message_id': 1})
                wire.notify([('bus', payload(channel, sent[0]))])
                assert wire.receive(1)
            return super().__str__()

    monkeypatch.setattr(
        listener, 'part_channel', lambda bus: SecondChannel('bus.part'))
    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.listen('bus')

        assert Bus.subscribe(database, [channel])['message'] == sent[0]


def test_message_that_arrives_with_the_answer_to_the_keep_alive(
        configure, monkeypatch, postgresql, database, channel):
    configure('bus', long_polling_timeout=30)
    listen(database)
    keep_alive_timeout = settings.keep_alive_timeout
    sent = []

    def before_keep_alive():
        if not sent:
            configure('bus', select_timeout=60)
            sent.append({'message_id': 1})
            wire.notify([('bus', payload(channel, sent[0]))])
            assert wire.receive(1)
        return keep_alive_timeout()

    with Wire(f'{postgresql.uri}/{database}') as wire:
        wire.listen('bus')
        monkeypatch.setattr(
            settings, 'keep_alive_timeout', before_keep_alive)

        assert Bus.subscribe(database, [channel])['message'] == sent[0]
