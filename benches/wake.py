"""One message to many waiting threads."""
import threading
import time

from tests.support import wait_until

from . import samples, sides
from .report import Row

TITLE = "(b) one message to waiting threads"


def run(postgresql, quick):
    for retained in [0, 10_000]:
        with sides.both(postgresql) as both:
            for side in both:
                side(sides.listen)
                side(sides.fill, samples.payloads(retained))
            # Many threads of stock take seconds.
            for threads, rounds in [(100, 9), (1000, 3)]:
                times, loads = {}, {}
                for number in range(2 if quick else rounds):
                    for side in both:
                        took, load = side(measure, threads, number)
                        times.setdefault(side.name, []).append(took)
                        loads.setdefault(side.name, []).append(load)
                text = "%s threads, %s retained, " % (
                    format(threads, ','), format(retained, ','))
                yield Row(
                    'b', text + "the last", 'ms', **times,
                    least=20 if retained else None, statistic='median')
                yield Row(
                    'b', text + "CPU", 'ms', **loads, statistic='median')


def measure(database, threads, number):
    """Milliseconds from the commit to the last thread's return, and the CPU
    that the process used meanwhile"""
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    channel = 'crowd:%d,%d' % (threads, number)
    returns = []
    gate = threading.Lock()

    def client(channels):
        response = Bus.subscribe(database, channels)
        returns.append((time.perf_counter(), time.process_time()))
        assert response['channel'] == channel
        # The end of the threads is not measured.
        with gate:
            pass

    with gate:
        crowd = [
            threading.Thread(
                target=client, args=(samples.channels(n) | {channel},),
                daemon=True)
            for n in range(threads)]
        for thread in crowd:
            thread.start()
        wait_until(lambda: sides.waiting(database, channel) == threads, 120)
        time.sleep(.2)
        with Transaction().start(database, 0) as transaction:
            Bus.publish(channel, samples.notification())
            start = time.perf_counter(), time.process_time()
            transaction.commit()
        wait_until(lambda: len(returns) == threads, 120)
    for thread in crowd:
        thread.join()
    took, load = (
        max(values) - begin
        for values, begin in zip(zip(*returns, strict=True), start,
            strict=True))
    return took * 1e3, load * 1e3
