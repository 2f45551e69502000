"""The same steps on the queue of stock and on ours give the same answers,
except after a message of a channel that is not asked for."""
import itertools
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trytond.bus import _MessageQueue as StockQueue
from trytond_fastbus import bus

TIMEOUT = 5

channels = st.sampled_from(['a', 'b', 'c'])
# Few values, so that they collide. Some of them are equal in Python.
few_ids = st.sampled_from([
        0, 1, 2, 3, 1.0, -0.0, 2.5, True, False, '', '1', 'a', 'é', '\ud800',
        '6f1c8f9e-52a5-4c0b-9c71-7d7f0a4d2a33', [], [1], [True], {},
        {'a': 1}, {'a': 1.0}, {'a': 1, 'b': [2]}, {'b': [2], 'a': 1}])
any_ids = st.recursive(
    st.booleans() | st.integers(-2 ** 63, 2 ** 64 - 1) | st.text(max_size=3)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.text(max_size=2), values, max_size=2)),
    max_leaves=4)
ids = few_ids | any_ids

steps = st.lists(st.one_of(
        st.tuples(st.just('append'), channels, st.none() | ids),
        st.tuples(st.just('append'), channels, few_ids),
        st.tuples(st.just('pass'), st.sampled_from([0, .25, 1, 3, 5, 7])),
        st.tuples(
            st.just('next'), st.sets(channels), st.none() | ids),
        st.tuples(st.just('next'), st.sets(channels), few_ids),
        ), max_size=40)


class Queues:
    "A queue of stock and one of ours, on one clock, with the same messages"

    def __init__(self):
        self.now = 1000
        self.stock = StockQueue(TIMEOUT)
        self.ours = bus._MessageQueue(TIMEOUT)
        self.appended = []
        self.number = itertools.count()

    def append(self, channel, id_):
        message = {'message_id': id_, 'number': next(self.number)}
        self.appended.append((channel, message, self.now))
        for queue in [self.stock, self.ours]:
            queue.append(channel, dict(message))

    def next(self, asked, last):
        assert self.ours.get_next(asked, last) == self.expected(asked, last)

    def expected(self, asked, last):
        """The answer of stock, except when last is known but in a channel that
        is not asked for. Stock does not see that message, and answers with the
        first one. Ours answers with stock's answer for the messages after it.
        """
        known = last is not None and next((
                index for index, (_, message, time) in enumerate(self.appended)
                if time >= self.now - TIMEOUT
                and message['message_id'] == last), None)
        seen = any(
            message['message_id'] == last
            for channel, message, time in self.appended
            if channel in asked and time >= self.now - TIMEOUT)
        if last is None or known is None or seen:
            return self.stock.get_next(asked, last)
        return self.after(known).get_next(asked)

    def after(self, index):
        queue, now = StockQueue(TIMEOUT), self.now
        for channel, message, time in self.appended[index + 1:]:
            self.now = time
            queue.append(channel, message)
        self.now = now
        return queue


@given(steps)
@settings(max_examples=400, deadline=None)
def test_answers_are_those_of_stock(steps):
    queues = Queues()
    with patch('time.time', lambda: queues.now):
        for step, *args in steps:
            if step == 'append':
                queues.append(*args)
            elif step == 'next':
                queues.next(*args)
            else:
                queues.now += args[0]
        # All messages are read at the end.
        for asked in [{'a'}, {'b', 'c'}, {'a', 'b', 'c'}, set()]:
            for last in [None, *(m['message_id'] for _, m, _ in
                        queues.appended)]:
                queues.next(asked, last)


@pytest.mark.parametrize('asked, last, ours, stock', [
        ({'b'}, 0, 1, 1),
        ({'b'}, 2, 3, 1),
        ({'b'}, 4, None, 1),
        ({'b', 'c'}, 2, 3, 1),
        ({'a', 'b'}, 2, 3, 3),
        ({'c'}, 2, None, None),
        ])
def test_last_message_in_channel_no_longer_asked(asked, last, ours, stock):
    queues = Queues()
    with patch('time.time', lambda: queues.now):
        for number in range(5):
            queues.append('ab'[number % 2], number)
        for queue, expected in [(queues.ours, ours), (queues.stock, stock)]:
            _, message = queue.get_next(asked, last)
            assert (message and message['message_id']) == expected
        queues.next(asked, last)


@pytest.mark.parametrize('class_', [StockQueue, bus._MessageQueue])
def test_time_is_asked_for_once_by_each_call(class_):
    times = itertools.count()
    with patch('time.time', lambda: next(times)):
        queue = class_(TIMEOUT)
        assert next(times) == 0
        queue.append('a', {'message_id': 1})
        assert next(times) == 2
        queue.get_next({'a'})
        assert next(times) == 4
