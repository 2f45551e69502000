"""The time of a call."""
import time


def per_call(function, seconds=.02):
    "Seconds of a call, measured over the calls that fit into the time"
    number = 1
    while True:
        start = time.perf_counter()
        for _ in range(number):
            function()
        took = time.perf_counter() - start
        if took >= seconds:
            return took / number
        number = max(2 * number, int(number * seconds / max(took, 1e-9)))
