"""The bus server gives the memory of a burst back."""
import ctypes
import subprocess
import sys

import pytest

# The queue that is kept was filled after the one that is dropped. Its memory
# is behind, so glibc gives nothing back by itself.
CODE = """
from trytond_fastbus import _native
from trytond_fastbus.allocator import Allocator

def resident():
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * 4096 >> 20

allocator = Allocator()
assert not allocator.give_back()
queue, kept = _native._MessageQueue(300), _native._MessageQueue(300)
before = resident()
for number in range(200000):
    queue.append('channel', {'message_id': number, 'text': 'x' * 200})
kept.append('channel', {'message_id': 1})
allocator.give_back()
full = resident()
del queue
assert allocator.give_back()
assert not allocator.give_back()
print(full - before, resident() - before)
"""


@pytest.mark.one_series
@pytest.mark.skipif(
    sys.platform != 'linux' or not hasattr(ctypes.CDLL(None), 'mallinfo2'),
    reason="glibc 2.33 or later")
def test_memory_of_a_burst_is_given_back():
    output = subprocess.check_output([sys.executable, '-c', CODE], text=True)
    burst, after = map(int, output.split())
    assert after < burst / 3, (burst, after)
