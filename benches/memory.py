"""The memory of retained messages and of waiting threads."""
import ctypes
import gc
import os
import threading

from tests.support import wait_until

from . import samples, sides
from .report import Row

TITLE = "(e) memory"
MESSAGE_MOST, WAITER_MOST = 200, 300


def run(postgresql, quick):
    messages, threads = (5000, 200) if quick else (50_000, 1000)
    for text, environ, index in [
            ("resident", {}, 0),
            # Then Python's allocations use malloc as well.
            ("allocated", {'PYTHONMALLOC': 'malloc'}, 1)]:
        stock, ours = measure(
            postgresql, environ, index, measure_messages, messages)
        yield Row(
            'e', "a message beyond its JSON, %s" % text, 'bytes',
            [stock], [ours], most=MESSAGE_MOST)
    for count in [1, 3]:
        stock, ours = measure(
            postgresql, {'PYTHONMALLOC': 'malloc'}, 1, measure_waiters,
            threads, count)
        yield Row(
            'e', "a waiter beside its thread, %d channel%s"
            % (count, 's' * (count > 1)), 'bytes',
            [stock], [ours], most=WAITER_MOST)


def measure(postgresql, environ, index, *call):
    with sides.both(postgresql, **environ) as both:
        for side in both:
            side(sides.listen)
        return [side(*call)[index] for side in both]


class Mallinfo(ctypes.Structure):
    "That of mallinfo2, in malloc.h"
    _fields_ = [(name, ctypes.c_size_t) for name in [
            'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks',
            'fsmblks', 'uordblks', 'fordblks', 'keepcost']]


def used():
    "The resident bytes, and the bytes that malloc has handed out"
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    with open('/proc/self/statm') as file:
        resident = int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE')
    libc.mallinfo2.restype = Mallinfo
    info = libc.mallinfo2()
    return resident, info.uordblks + info.hblkhd


def measure_messages(database, count):
    # Memory that is needed once does not belong to a message.
    sides.fill(database, samples.payloads(500))
    payloads = samples.payloads(count)
    size = sum(map(len, payloads)) / count
    before = used()
    sides.fill(database, payloads)
    return [
        (after - start) / count - size
        for start, after in zip(before, used(), strict=True)]


def measure_waiters(database, threads, channels):
    """The memory of threads that wait first for a lock and then for a message
    """
    from trytond.bus import Bus
    sides.fill(database, samples.payloads(1, 'common'))
    ready = []
    gate = threading.Lock()

    def client(channels):
        # Memory that a thread needs once is allocated before the measurement.
        Bus.subscribe(database, {'common'})
        ready.append(None)
        with gate:
            pass
        Bus.subscribe(database, channels)

    asked = [
        sorted(samples.channels(number))[:channels]
        for number in range(threads)]
    with gate:
        crowd = [
            threading.Thread(target=client, args=(channels,), daemon=True)
            for channels in asked]
        for thread in crowd:
            thread.start()
        wait_until(lambda: len(ready) == threads, 60)
        before = used()
    if sides.is_ours():
        wait_until(lambda: sides.waiting(database, None) == threads, 60)
    else:
        wait_until(
            lambda: all(sides.waiting(database, channels[-1])
                for channels in asked), 60)
    after = used()
    return [
        (value - start) / threads
        for start, value in zip(before, after, strict=True)]
