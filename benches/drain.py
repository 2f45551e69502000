"""A client that fetches retained messages one by one."""
import time

from . import samples, sides
from .report import Row

TITLE = "(c) a client that drains its channel"
CHANNEL = 'user:1'


def run(postgresql, quick):
    count, rounds = (1000, 2) if quick else (5000, 3)
    figures = {}
    with sides.both(postgresql) as both:
        for side in both:
            side(sides.listen)
            side(sides.fill, samples.payloads(count, CHANNEL))
        for _ in range(rounds):
            for side in both:
                figures.setdefault(side.name, []).append(
                    side(measure, count))
    yield Row(
        'c', "each of %s messages" % format(count, ','), 'µs', **figures,
        least=None if quick else 50)


def measure(database, count):
    from trytond.bus import Bus
    channels = samples.channels(1)
    last, seen = None, set()
    start = time.perf_counter()
    for _ in range(count):
        response = Bus.subscribe(database, channels, last)
        last = response['message']['message_id']
        seen.add(last)
    took = time.perf_counter() - start
    assert len(seen) == count
    return took / count * 1e6
