"""Has a process give back what is free when it gets SIGUSR2, its garbage and
what its allocator keeps: Python imports this at its start, with this directory
on PYTHONPATH.

glibc gives each of many threads a heap of its own, and never gives back what
is free at the end of one, but for the first. So there is only that.
"""
import ctypes
import gc
import signal

M_ARENA_MAX = -8


def give_back(*_):
    gc.collect()
    trim(0)


# Not every C library has them.
libc = ctypes.CDLL(None)
trim = getattr(libc, 'malloc_trim', lambda _: None)
getattr(libc, 'mallopt', lambda *_: None)(M_ARENA_MAX, 1)
signal.signal(signal.SIGUSR2, give_back)
