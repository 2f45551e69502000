"""Logs of events, one line of JSON for each. A killed process leaves complete
lines."""
import json
import os
import time
from pathlib import Path


class Log:
    "Appends events to a file"

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, event, **values):
        "Append the event with the current time"
        line = json.dumps(
            {'event': event, 'time': time.monotonic(), **values})
        # A written line survives the process.
        os.write(self._fd, line.encode() + b'\n')


def rest(task, stop=None):
    "Wait while the file exists that makes all programs pause"
    path = Path(task['rest'])
    while path.exists() and not (stop and stop.is_set()):
        time.sleep(.2)


def read(path):
    "Return the events of the file"
    if not path.exists():
        return []
    # Without an incomplete last line
    lines = path.read_text().rpartition('\n')[0].splitlines()
    return list(map(json.loads, lines))
