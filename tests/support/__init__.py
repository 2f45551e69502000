"""What the tests, the benchmarks and the demonstration stand on."""
import time


def wait_until(condition, deadline=60, message=None):
    """Return the first true value of condition(), looking every few
    milliseconds and then less often; after deadline seconds raise
    TimeoutError."""
    end = time.monotonic() + deadline
    pause = .002
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(
                message or f"nothing after {deadline} s: {condition}")
        time.sleep(pause)
        pause = min(pause * 1.2, .05)
    return value
