"""Another process on the same databases, with a bus of its own."""
import os
import pickle
import subprocess
import sys
import tempfile
from inspect import isgenerator
from pathlib import Path

from .server import environment, write_config


class Peer:
    """A process that calls the functions of support.bus, as a context manager.

    sections are its configuration. The bus is ours unless they name another.
    """

    def __init__(self, sections):
        self._sections = sections

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory()
        config = write_config(
            Path(self._directory.name) / 'trytond.conf', self._sections)
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'support.peer'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            env=environment(TRYTOND_CONFIG=str(config)))
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._directory.cleanup()

    def call(self, name, *args, **kwargs):
        "Return the result of support.bus.name(*args, **kwargs) there"
        self.start(name, *args, **kwargs)
        return self.result()

    def start(self, name, *args, **kwargs):
        "Begin a call whose result is read later"
        pickle.dump((name, args, kwargs), self._process.stdin)
        self._process.stdin.flush()

    def signal(self, number):
        self._process.send_signal(number)

    def result(self):
        value, error = pickle.load(self._process.stdout)
        if error:
            raise RuntimeError(error)
        return value


def main():
    from . import bus
    output, sys.stdout = sys.stdout.buffer, sys.stderr

    def send(value, error):
        pickle.dump((value, error), output)
        output.flush()

    while True:
        try:
            name, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            # Calls that still wait are in threads that are not daemons.
            os._exit(0)
        try:
            result = getattr(bus, name)(*args, **kwargs)
            # One result, or one after the other
            for value in result if isgenerator(result) else [result]:
                send(value, None)
        except Exception as error:
            send(None, f'{type(error).__name__}: {error}')


if __name__ == '__main__':
    main()
