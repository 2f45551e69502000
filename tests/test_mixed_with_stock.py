"""Processes with stock's bus and with ours share a database."""
import datetime
import json
import math
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bus import Wire, drain, payload, publish
from support.peer import Peer
from trytond.bus import Bus
from trytond.protocols.jsonrpc import JSONDecoder
from trytond.transaction import Transaction

MESSAGES = [
    {'type': 'notification', 'title': "Hello", 'body': None, 'priority': 1},
    {'text': "é€😀\n\"\\/\0\x7f", '': {}, 'list': [[], [1, [None, True]]]},
    {'datetime': datetime.datetime(2026, 11, 24, 1, 2, 3, 4),
        'date': datetime.date(2026, 11, 24),
        'time': datetime.time(1, 2, 3, 4),
        'timedelta': datetime.timedelta(days=1, microseconds=1),
        'bytes': b'\0\xff' * 99,
        'Decimal': Decimal('1.10')},
    {'inf': math.inf, '-inf': -math.inf, 'large': 10 ** 40, 'float': 1e-7,
        'surrogate': '\ud800'},
    {'text': 'x' * 7_000},
    ]


@pytest.fixture(scope='module')
def stock(postgresql, listening):
    "A process with stock's bus that listens"
    with Peer({
                'database': {'uri': postgresql.uri},
                'bus': {'class': None, 'select_timeout': 1},
                }) as peer:
        peer.call('listen', listening)
        yield peer


def same(left, right):
    "Compare as JSON text, including NaN"
    return repr(left) == repr(right)


@pytest.mark.parametrize('message', MESSAGES)
def test_stock_receives_messages_of_ours(
        stock, listening, channel, message):
    message = dict(message)
    id_, = publish(listening, channel, message)
    received, = stock.call('drain', listening, [channel], 1)
    assert received['message_id'] == id_
    assert same(received, message)
    # Our bus receives it as well.
    assert same(drain(listening, [channel], 1)[0], message)


@pytest.mark.parametrize('message', MESSAGES)
def test_ours_receives_messages_of_stock(
        stock, listening, channel, message):
    id_, = stock.call('publish', listening, channel, message)
    received, = drain(listening, [channel], 1)
    assert received.pop('message_id') == id_
    assert same(received, message)


def test_stock_continues_after_a_message_that_it_cannot_receive(
        stock, listening, channel):
    large = {'text': 'x' * 100_000}
    _, id_ = publish(listening, channel, large, {'text': 'small'})
    received, = stock.call('drain', listening, [channel], 1)
    assert received['message_id'] == id_
    assert drain(listening, [channel], 1) == [large]


def test_both_publish_at_the_same_time(stock, listening, channel):
    stock.start(
        'publish', listening, channel, *[{'number': n} for n in range(200)])
    ours = [
        publish(listening, channel, {'number': n})[0] for n in range(200)]
    theirs = stock.result()
    ids = [m['message_id'] for m in drain(listening, [channel], 400)]
    assert sorted(ids) == sorted(ours + theirs)
    assert [id_ for id_ in ids if id_ in set(ours)] == ours
    assert [id_ for id_ in ids if id_ in set(theirs)] == theirs


ZONES = st.none() | st.builds(
    datetime.timezone, st.timedeltas(
        datetime.timedelta(hours=-23), datetime.timedelta(hours=23)))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.text(st.characters(exclude_categories=[])) | st.binary()
    | st.datetimes(timezones=ZONES) | st.dates()
    | st.times(timezones=ZONES) | st.timedeltas()
    | st.decimals(),
    lambda inner: st.lists(inner, max_size=4)
    | st.tuples(inner, inner)
    | st.dictionaries(
        st.text(max_size=9) | st.integers() | st.booleans() | st.none()
        | st.floats(), inner, max_size=4),
    max_leaves=8)


# A channel with a control character is refused.
ALLOWED = st.characters(exclude_categories=['Cs', 'Cc'])


@pytest.fixture(scope='module')
def wire(postgresql, listening):
    with Wire(f'{postgresql.uri}/{listening}') as wire:
        yield wire.listen('bus')


@settings(
    max_examples=200, deadline=None,
    suppress_health_check=list(HealthCheck))
@given(name=st.text(ALLOWED, max_size=30), message=st.dictionaries(
        st.text(max_size=9), VALUES, max_size=6))
def test_payload_is_to_the_letter_that_of_stock(
        wire, listening, name, message):
    name = f'letter:{name}'
    with Transaction().start(listening, 0) as transaction:
        Bus.publish(name, message)
        expected = payload(name, message)
        if len(expected) > 7_999:
            transaction.rollback()
            return
    got, = [
        text for _, text in wire.receive(1)
        if json.loads(text)['channel'] == name]
    assert got == expected
    received = wait_for(listening, name, message['message_id'])
    assert same(received, json.loads(
            expected, object_hook=JSONDecoder())['message'])


def wait_for(database, channel, id_):
    "Return the message with this id"
    last = None
    while last != id_:
        message, = drain(database, [channel], 1, last)
        last = message['message_id']
    return message
