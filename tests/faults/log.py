"""Logs of events, one a line of JSON, which a killed process leaves whole."""
import json
import os
import time
from pathlib import Path


class Log:
    "Appends events to a file"

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def write(self, event, **values):
        "Append the event with the time it is now"
        line = json.dumps(
            {'event': event, 'time': time.monotonic(), **values})
        # Once written, it is there even if the process is killed.
        os.write(self._fd, line.encode() + b'\n')


def rest(task, stop=None):
    "Wait as long as the file is there that has all programs do nothing"
    path = Path(task['rest'])
    while path.exists() and not (stop and stop.is_set()):
        time.sleep(.2)


def read(path):
    "Return the events of the file"
    if not path.exists():
        return []
    # Without the line that is being written
    lines = path.read_text().rpartition('\n')[0].splitlines()
    return list(map(json.loads, lines))
