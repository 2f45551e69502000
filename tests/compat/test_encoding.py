"""For any message, JSON is written to the letter as trytond's encoder does it,
and read as trytond's decoder does it."""
import datetime as dt
import enum
import json
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.server import run_python
from trytond.protocols.jsonrpc import JSONDecoder, JSONEncoder
from trytond.transaction import Transaction
from trytond_fastbus import Bus
from trytond_fastbus.bus import _MessageQueue


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    def __str__(self):
        return 'other'


class Number(int):
    def __repr__(self):
        return 'other'


class Fraction(float):
    def __repr__(self):
        return 'other'


class Pairs(dict):
    def items(self):
        return [('other', 1), *super().items()]


class Sequence(list):
    def __iter__(self):
        yield 'other'


class Wrong(dict):
    def items(self):
        return ['ab', ('a', 'b', 'c')]


class Registered:
    "A type that a module registers with the encoder and the decoder"

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f'Registered({self.value!r})'


class Unknown:
    def __repr__(self):
        return 'Unknown()'


class Moment(dt.datetime):
    "A type that no module registers"


class Era(dt.datetime):
    "A type that a module registers with the serializer of trytond"
    year = 'of old'


@pytest.fixture(scope='module', autouse=True)
def registered():
    JSONEncoder.register(Registered, lambda o: {
            '__class__': 'Registered', 'value': o.value})
    JSONDecoder.register('Registered', lambda dct: Registered(dct['value']))
    JSONEncoder.register(Era, JSONEncoder.serializers[dt.datetime])
    yield
    del JSONEncoder.serializers[Era]
    del JSONEncoder.serializers[Registered]
    del JSONDecoder.decoders['Registered']


class Database:
    "Records payloads instead of sending them"
    name = 'database'

    def has_channel(self):
        return True

    def notify(self, connection, channel, payload):
        self.payload = payload


def encoded(message):
    "Return the payload that Bus.publish sends"
    transaction = Transaction()
    transaction.database, transaction.connection = Database(), object()
    try:
        Bus.publish('channel', message)
        return transaction.database.payload
    finally:
        transaction.database = transaction.connection = None


def encoded_by_trytond(channel, message):
    return json.dumps(
        {'channel': channel, 'message': message},
        cls=JSONEncoder, separators=(',', ':'))


def decoded(message):
    "Return the message after it has passed the queue"
    queue = _MessageQueue(1000)
    queue.append('channel', message)
    return queue.get_next({'channel'})[1]


def decoded_by_trytond(message):
    return json.loads(
        json.dumps(message, cls=JSONEncoder), object_hook=JSONDecoder())


def outcome(function, *args):
    try:
        # The repr tells types and signs, and NaN equals itself there.
        return repr(function(*args))
    except Exception as error:
        return type(error)


def check(value):
    message = {'value': value}
    payload = outcome(encoded, message)
    # An id is set in any case.
    assert payload == outcome(encoded_by_trytond, 'channel', message)
    message = {'message_id': 1, 'value': value}
    assert outcome(decoded, message) == outcome(decoded_by_trytond, message)


texts = st.text(max_size=5) | st.text(
    st.sampled_from('aé€😀"\\/\0\x1f\x7f\n\ud800\udfff'), max_size=4)
zones = st.none() | st.sampled_from([
        dt.timezone.utc, dt.timezone(dt.timedelta(hours=-3, minutes=-30))])
registrable = [
    st.datetimes(timezones=zones), st.dates(), st.times(timezones=zones),
    st.timedeltas(),
    st.binary(max_size=99), st.binary(max_size=9).map(bytearray),
    st.decimals(), st.integers().map(Registered)]
if types.MappingProxyType in JSONEncoder.serializers:
    registrable.append(st.dictionaries(texts, st.integers(), max_size=2).map(
            types.MappingProxyType))
for set_ in [set, frozenset]:
    if set_ in JSONEncoder.serializers:
        registrable.append(st.lists(st.integers(), max_size=3).map(set_))
numbers = [
    st.integers(), st.integers(-2 ** 70, 2 ** 70), st.floats(),
    st.sampled_from([
            -0.0, 1e16, 1e-7, 1e22, 5e-324, 0.1 + 0.2, 2 ** 63, 2 ** 64,
            -2 ** 63 - 1, 10 ** 400, Colour.RED, Number(7), Number(2 ** 80),
            Fraction(1.5)])]
keys = st.one_of(
    texts, st.none(), st.booleans(), *numbers, texts.map(Text))
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), texts, texts.map(Text), *numbers,
        *registrable),
    lambda values: (
        st.lists(values, max_size=4)
        | st.tuples(values, values)
        | st.dictionaries(keys, values, max_size=4)),
    max_leaves=12)


@given(values)
@settings(max_examples=500, deadline=None)
def test_value_is_encoded_and_decoded_as_by_trytond(value):
    check(value)


@pytest.mark.parametrize('value', [
        {'__class__': 'unknown', 'a': 1},
        {'__class__': 1},
        {'__class__': []},
        {'__class__': 'date'},
        {'__class__': 'Decimal', 'decimal': 'x'},
        [{'__class__': 'bytes', 'base64': 'YQ=='}],
        {'1': 'a', 1: 'b', 2.0: 'c', None: 'd', False: 'e'},
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
        dt.datetime(2020, 10, 25, 2, 30, fold=1),
        dt.datetime.min, dt.datetime.max, dt.date.min, dt.date.max,
        dt.time.min, dt.time.max, dt.timedelta.min, dt.timedelta.max,
        Moment(2020, 1, 1), Era(2020, 1, 1),
        {(1, 2): 'a tuple as key'},
        {b'a': 1},
        range(3), 1j, object, Unknown(), {1, 2}, frozenset([1]),
        types.MappingProxyType({'a': 1}), dt.timezone.utc,
        ], ids=repr)
def test_special_value_is_treated_as_by_trytond(value):
    check(value)


@pytest.mark.parametrize('value', [
        dt.datetime(2020, 1, 2), dt.date(2020, 1, 2), dt.time(1, 2)], ids=repr)
def test_serializer_in_the_place_of_trytonds_is_used(value, monkeypatch):
    check(value)
    monkeypatch.setitem(
        JSONEncoder.serializers, type(value), lambda o: {'text': str(o)})
    check(value)
    assert json.loads(encoded({'value': value}))['message']['value'] == {
        'text': str(value)}
    monkeypatch.undo()
    check(value)


def test_serializer_that_was_replaced_at_the_start_is_used():
    process = run_python('''
import datetime
import functools
from trytond.protocols.jsonrpc import JSONEncoder
from trytond_fastbus.bus import _MessageQueue

stock = JSONEncoder.serializers[datetime.datetime]

@functools.wraps(stock)
def serialize(value):
    return stock(value) if value.year < 2000 else str(value)

JSONEncoder.serializers[datetime.datetime] = serialize
queue = _MessageQueue(1000)
for year in [1, 2020]:
    time = datetime.datetime(year, 2, 3)
    queue.append(str(year), {'message_id': year, 'value': time})
    print(repr(queue.get_next({str(year)})[1]['value']))
''', {'database': {'uri': 'sqlite://'}})
    # trytond 6.0 has a warning there
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [
        'datetime.datetime(1, 2, 3, 0, 0)', "'2020-02-03 00:00:00'"]


def test_error_names_the_type_that_can_not_be_encoded():
    for value in [Unknown(), [{'a': Unknown()}], {'a': (1, Unknown())}]:
        with pytest.raises(TypeError, match='Unknown'):
            encoded({'value': value})


def test_subclass_is_encoded_by_its_overrides():
    for value in [
            Pairs(a=1), Pairs(), Sequence([1, 2]), Sequence(), Wrong(a=1),
            [Pairs(a=Sequence([1]))]]:
        check(value)


def test_container_within_itself_is_refused_as_by_json():
    value = []
    value.append({'a': value})
    for encode in [encoded, json.dumps]:
        with pytest.raises(ValueError, match="Circular reference detected"):
            encode({'value': value})


def test_id_is_a_new_uuid_in_the_dictionary_of_the_caller():
    message = {'message_id': 'old'}
    ids = set()
    for _ in range(3):
        payload = json.loads(encoded(message))
        assert payload['message'] == message
        ids.add(message['message_id'])
    assert len(ids) == 3
    assert {id_[14] for id_ in ids} == {'4'}
