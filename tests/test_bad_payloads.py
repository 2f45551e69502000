"""A payload that is no message is logged, counted and skipped. A message
passes, regardless of the payloads before and after it."""
import logging

import pytest
from support import wait_until
from support.bus import Wire, drain, publish, statistics
from trytond.bus import Bus
from trytond.transaction import Transaction
from trytond_fastbus import _native, skipped

LARGE = '{"channel":"c","message":{"message_id":"1","x":"%s"}}' % (
    'x' * 20_000)
PARTS = _native.split(LARGE)
GARBAGE = [
    ('bus', payload) for payload in [
        '', 'garbage', '{', 'null', '1', '"text"', '[]',
        '["c", {"message_id": 1}]', '{}', '{"channel":"c"}',
        '{"message":{"message_id":1}}',
        '{"channel":1,"message":{"message_id":1}}',
        '{"channel":null,"message":{"message_id":1}}',
        '{"channel":["c"],"message":{"message_id":1}}',
        '{"channel":"c","message":null}',
        '{"channel":"c","message":"text"}',
        '{"channel":"c","message":["message_id"]}',
        '{"channel":"c","message":{}}',
        '{"channel":"c","message":{"type":"x"}}',
        '{"channel":"c","message":{"message_id":1}} and more',
        '{"channel":"\\ud800","message":{"message_id":1}}',
        '[' * 7_000, '{"a":' * 1_500, '9' * 7_900,
        '{"channel":"c","message":{"message_id":1,"d":'
        '{"__class__":"date","year":NaN}}}',
        ]
    ] + [
    ('bus.part', part) for part in [
        '', 'garbage', 'a b c d', 'id 0 0 text', 'id 0 x text',
        'id 1 2 text', 'id -1 2 text', 'id 0 1 no message',
        f'id 0 {10 ** 30} text', PARTS[1], PARTS[2],
        ]
    ]


@pytest.fixture
def wire(postgresql, listening):
    with Wire(f'{postgresql.uri}/{listening}') as wire:
        yield wire


def test_garbage_is_skipped_counted_and_logged(
        wire, listening, channel, caplog):
    before = statistics(listening)['skipped']
    good = [
        ('bus', '{"channel":"%s","message":{"message_id":"%s %s"}}' % (
                channel, channel, number))
        for number in range(len(GARBAGE) + 1)]
    mixed = [good[0]]
    for garbage, message in zip(GARBAGE, good[1:], strict=True):
        mixed += [garbage, message]
    with caplog.at_level(logging.ERROR, 'trytond.bus'):
        wire.notify(mixed)
        messages = drain(listening, [channel], len(good))
    assert [m['message_id'] for m in messages] == [
        f'{channel} {number}' for number in range(len(good))]
    assert statistics(listening)['skipped'] - before == len(GARBAGE)

    def lines():
        return [
            r.getMessage() for r in caplog.records if r.name == 'trytond.bus']

    # Messages are there before the listener has logged the rest.
    wait_until(lambda: len(lines()) >= len(GARBAGE))
    assert len(lines()) == len(GARBAGE)
    assert all("skipped a notification: not a " in line for line in lines())


def test_flood_of_garbage_is_few_lines(wire, listening, channel, caplog):
    before = statistics(listening)['skipped']
    with caplog.at_level(logging.ERROR, 'trytond.bus'):
        for _ in range(3):
            wire.notify([('bus', f'garbage {n}') for n in range(100)])
        publish(listening, channel, {})
        drain(listening, [channel], 1)
        wait_until(lambda: statistics(listening)['skipped'] == before + 300)
        wait_until(lambda: "skips more" in caplog.text)
    assert caplog.text.count("skipped a notification") <= skipped.LINES
    assert caplog.text.count("skips more") == 1


@pytest.mark.parametrize('json, value', [
        ('NaN', None), ('Infinity', float('inf')), ('"\\ud800"', '\ud800'),
        ('-0', 0), ('1' * 4_000, int('1' * 4_000)), ('1e400', float('inf')),
        ('"\u00e9"', "é"), ('{"x":1,"x":2}', {'x': 2}), (' [ 1 ] ', [1]),
        ('[' * 300 + ']' * 300, None),
        ])
def test_json_that_only_python_reads_is_accepted(
        wire, listening, channel, json, value):
    before = statistics(listening)['skipped']
    wire.notify([(
                'bus', '{"channel":"%s","message":{"message_id":1,"x":%s}}'
                % (channel, json))])
    message, = drain(listening, [channel], 1)
    if value is not None:
        assert message == {'message_id': 1, 'x': value}
    assert statistics(listening)['skipped'] == before


def test_parts_that_are_cut_off_do_not_spoil_the_next(
        wire, listening, channel):
    wire.notify([('bus.part', part) for part in PARTS[:2]])
    message = {'type': 'x', 'text': 'x' * 100_000}
    publish(listening, channel, message)
    assert drain(listening, [channel], 1) == [message]


class Unknown:
    "A type that cannot be encoded"


CIRCULAR = {}
CIRCULAR['x'] = [CIRCULAR]
DEEP = {}
for _ in range(1_000):
    DEEP = {'x': DEEP}


@pytest.mark.parametrize('channel, message, error, text', [
        (None, {}, TypeError, 'channel must be a str, not NoneType'),
        (1, {}, TypeError, 'channel must be a str, not int'),
        (b'c', {}, TypeError, 'channel must be a str, not bytes'),
        ('\ud800', {}, ValueError, 'channel must be Unicode text'),
        ('c', None, TypeError, 'message must be a dict, not NoneType'),
        ('c', [], TypeError, 'message must be a dict, not list'),
        ('c', {'x': Unknown()}, TypeError, 'Unknown'),
        ('c', {'x': [{'y': Unknown}]}, TypeError, 'type'),
        ('c', {(1, 2): 1}, TypeError, 'keys must be .*, not tuple'),
        ('c', CIRCULAR, ValueError, 'Circular'),
        ('c', DEEP, RecursionError, 'nested'),
        ])
def test_bad_message_is_refused_and_the_transaction_goes_on(
        listening, channel, message, error, text):
    good = f'good after {text}'
    with Transaction().start(listening, 0):
        with pytest.raises(error, match=text):
            Bus.publish(channel, message)
        id_ = {'type': 'x'}
        Bus.publish(good, id_)
    assert drain(listening, [good], 1) == [id_]


@pytest.mark.parametrize('channels, text', [
        ('user:1', 'not a str'), ([1], 'not of int'), ([None], 'NoneType'),
        (['c', b'c'], 'bytes'), (None, 'NoneType'), (1, 'int'),
        ])
def test_bad_channels_are_refused(listening, channels, text):
    with pytest.raises(TypeError, match=text):
        Bus.subscribe(listening, channels)


def test_publishing_needs_a_transaction():
    with pytest.raises(RuntimeError, match="no transaction"):
        Bus.publish('c', {})
