"""Helpers of the tests, the benchmarks and the demonstration."""
import time


def wait_until(condition, deadline=60, message=None):
    """Return the first true value of condition(), checked every few
    milliseconds and then less often. Raise TimeoutError after deadline
    seconds."""
    end = time.monotonic() + deadline
    pause = .002
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(
                message or f"nothing after {deadline} s: {condition}")
        time.sleep(pause)
        pause = min(pause * 1.2, .05)
    return value
