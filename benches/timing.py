"""How long a call takes."""
import time


def per_call(function, seconds=.02):
    "Seconds that a call takes, of as many as fit into the time"
    number = 1
    while True:
        start = time.perf_counter()
        for _ in range(number):
            function()
        took = time.perf_counter() - start
        if took >= seconds:
            return took / number
        number = max(2 * number, int(number * seconds / max(took, 1e-9)))
