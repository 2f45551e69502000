"""What the tests, the benchmarks and the demonstration stand on."""
import time


def wait_until(condition, deadline=60, message=None):
    """Return the first true value of condition(), looking every few
    milliseconds; after deadline seconds raise TimeoutError."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(
                message or f"nothing after {deadline} s: {condition}")
        time.sleep(.005)
    return value
