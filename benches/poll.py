"""A poll that is answered at once, whatever else is retained."""
from . import samples, sides
from .report import Row
from .timing import per_call

TITLE = "(a) a poll answered from the history"


def run(postgresql, quick):
    rounds = 3 if quick else 9
    with sides.both(postgresql) as (stock, ours):
        for side in (stock, ours):
            side(sides.listen)
        filled = 0
        for number, size in enumerate([0, 1000, 10_000, 50_000]):
            asked = {
                side: prepare(side, size - filled, number)
                for side in (stock, ours)}
            filled = size
            for text, last in [
                    ("%s retained", None),
                    ("%s retained, last message known", 0)]:
                figures = {stock: [], ours: []}
                for _ in range(rounds):
                    for side, ids in asked.items():
                        figures[side].append(side(
                                measure, number,
                                None if last is None else ids[last]))
                yield Row(
                    'a', text % format(size, ','), 'µs',
                    figures[stock], figures[ours],
                    least=400 if size == 10_000 else None, most=5)


def prepare(side, count, number):
    "Have messages of others retained, and after them two for the client"
    side(sides.fill, samples.payloads(count))
    return side(answers, number)


def answers(database, number):
    from trytond.bus import Bus
    channel = client(number)
    sides.fill(database, samples.payloads(2, channel))
    # Stock takes the two in reverse.
    first = Bus.subscribe(database, {channel})['message']['message_id']
    second = Bus.subscribe(database, {channel}, first)
    return first, second['message']['message_id']


def client(number):
    return next(
        channel for channel in samples.channels(number)
        if channel.startswith('client:'))


def measure(database, number, last):
    from trytond.bus import Bus
    channels = samples.channels(number)
    assert Bus.subscribe(database, channels, last)['message']
    return per_call(lambda: Bus.subscribe(database, channels, last)) * 1e6
