"""A poll that is answered at once, at any number of other retained messages.
"""
import contextlib

from . import samples, sides
from .report import Row
from .timing import per_call

TITLE = "(a) a poll answered from the history"
SIZES = [0, 1000, 10_000, 50_000]
CHANNEL = min(samples.channels())


def run(postgresql, quick):
    rounds = 5 if quick else 25
    asked = {}
    # All sizes exist from the beginning, so that a disturbance of the machine
    # affects all of them alike.
    with contextlib.ExitStack() as stack:
        for size in SIZES:
            for side in stack.enter_context(sides.both(postgresql)):
                side(sides.listen)
                side(sides.fill, samples.payloads(size))
                first = side(answers)
                for last in [None, first]:
                    asked[size, last is not None, side] = last
        figures = {key: [] for key in asked}
        for _ in range(rounds):
            for (size, known, side), last in asked.items():
                figures[size, known, side].append(side(measure, last))
    for size in SIZES:
        for known in [False, True]:
            yield Row(
                'a', "%s retained%s" % (
                    format(size, ','),
                    ", last message known" if known else ""),
                'µs', **{
                    side.name: values
                    for (*key, side), values in figures.items()
                    if key == [size, known]},
                least=400 if size == 10_000 else None, most=5)


def answers(database):
    """Let two messages be retained for the client, after those of others, and
    return the id of the first"""
    from trytond.bus import Bus
    sides.fill(database, samples.payloads(2, CHANNEL))
    return Bus.subscribe(database, {CHANNEL})['message']['message_id']


def measure(database, last):
    from trytond.bus import Bus
    channels = samples.channels()
    assert Bus.subscribe(database, channels, last)['message']
    return per_call(lambda: Bus.subscribe(database, channels, last)) * 1e6
