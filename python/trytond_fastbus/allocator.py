"""The memory allocator of the bus server, if it is that of glibc.

glibc keeps small blocks that were freed in lists, and joins all of them when
it next needs a large block. After a burst that takes 100 ms, during which a
bus may be locked. glibc also keeps the memory of clients that have left.
"""
import ctypes
import logging

logger = logging.getLogger('trytond.bus')

# From malloc.h
M_MXFAST = 1
# How many bytes must have become free before they are given back, because
# other threads may wait for the allocator meanwhile
WORTH = 16 << 20


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
            'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks',
            'fsmblks', 'uordblks', 'fordblks', 'keepcost')]


class Allocator:
    "Joins blocks as they are freed, and gives memory back to the system"

    def __init__(self):
        self._glibc = None
        self._least = 0
        try:
            glibc = ctypes.CDLL(None)
            glibc.mallopt(M_MXFAST, 0)
            # glibc 2.33 and later
            glibc.mallinfo2.restype = _Mallinfo2
            glibc.malloc_trim.argtypes = [ctypes.c_size_t]
        except (OSError, AttributeError):
            # musl, macOS or an older glibc
            return
        self._glibc = glibc
        self._least = self._free()

    def give_back(self):
        """Give memory back if enough of it has become free since the last
        call; return whether it was. To be called about once a minute."""
        if not self._glibc:
            return False
        free = self._free()
        self._least = min(self._least, free)
        if free < self._least + WORTH:
            return False
        logger.debug(
            "bus server gives %d MB of free memory back",
            (free - self._least) >> 20)
        self._glibc.malloc_trim(0)
        # glibc counts memory that was given back as free.
        self._least = self._free()
        return True

    def _free(self):
        return self._glibc.mallinfo2().fordblks
