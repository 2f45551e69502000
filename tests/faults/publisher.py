"""Publishes at random, as a program. Its arguments are a file with the task
(see run.py), its name and, to send the end markers instead, "end"."""
import json
import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from trytond.bus import Bus
from trytond.transaction import Transaction

from .log import Log, rest

# Seconds between two attempts while the database is down
PAUSE = .2
SIZES = [10, 300, 20_000, 100_000]
WEIGHTS = [80, 12, 6, 2]


class Publisher:
    """The transactions of one thread, drawn from the seed.

    After the event die is set, the process is killed in a COMMIT.
    """

    def __init__(self, task, name, log, die):
        self._task = task
        self._database = task['database']
        self._channels = task['channels']
        self._rate = task['rate']
        self._random = random.Random(f'{task["seed"]} {name}')
        self._name = name
        self._log = log
        self._die = die
        self._units = self._tags = 0

    def run(self, stop):
        "Publish until the event is set, despite any fault of the database"
        kinds = [
            self.plain, self.rolled_back, self.autocommit, self.by_connection]
        while not stop.is_set():
            rest(self._task, stop)
            kind, = self._random.choices(kinds, [12, 3, 2, 3])
            try:
                kind()
            except Exception as error:
                print(self._name, type(error).__name__, error, flush=True)
                time.sleep(PAUSE)
            stop.wait(self._random.expovariate(self._rate))

    def plain(self):
        with self._transaction() as transaction, self.unit() as unit:
            self._publish_some(unit)
            self.commit(unit, transaction.commit)

    def rolled_back(self):
        with self._transaction() as transaction, self.unit() as unit:
            self._publish_some(unit)
            transaction.rollback()
            self._log.write('rolled back', unit=unit)

    def autocommit(self):
        with self._transaction(autocommit=True):
            for _ in range(self._random.randint(1, 5)):
                # The table can't tell whether the next statement succeeded.
                with self.unit(ledger=False) as unit:
                    self.commit(unit, lambda unit=unit: self.publish(unit))

    def by_connection(self):
        "Commit the connection directly, as a module may do"
        with self._transaction() as transaction:
            for commit in [transaction.connection.commit, transaction.commit]:
                with self.unit() as unit:
                    self._publish_some(unit)
                    self.commit(unit, commit)

    def end(self, clients):
        "Send each client its last message"
        with self._transaction() as transaction, self.unit() as unit:
            for client in clients:
                self.publish(unit, f'client:{client}', end=True)
            self.commit(unit, transaction.commit)

    @contextmanager
    def unit(self, ledger=True):
        "The work of one commit. An error ends it"
        self._units += 1
        unit = f'{self._name}:{self._units}'
        self._log.write('begin', unit=unit, ledger=ledger)
        self._failed = 'rolled back'
        try:
            if ledger:
                self._execute(f"INSERT INTO ledger (unit) VALUES ('{unit}')")
            yield unit
        except Exception:
            self._log.write(self._failed, unit=unit)
            raise

    def commit(self, unit, commit):
        self._log.write('commit', unit=unit)
        self._failed = 'unknown'
        if self._die.is_set():
            threading.Timer(
                self._random.uniform(0, .004), os.kill,
                [os.getpid(), signal.SIGKILL]).start()
        commit()
        self._log.write('committed', unit=unit)

    def publish(self, unit, channel=None, **values):
        self._tags += 1
        tag = f'{self._name}/{self._tags}'
        channel = channel or self._random.choice(self._channels)
        size, = self._random.choices(SIZES, WEIGHTS)
        self._log.write(
            'publish', unit=unit, tag=tag, channel=channel, size=size)
        Bus.publish(channel, {
                'type': 'test', 'tag': tag, 'text': 'é' * size, **values})
        return tag

    def _publish_some(self, unit):
        for _ in range(self._random.randint(
                1, self._random.choice([1, 3, 20]))):
            self.publish(unit)
        if self._random.random() < .2:
            self._execute('SAVEPOINT part')
            tags = [
                self.publish(unit) for _ in range(self._random.randint(1, 3))]
            self._execute('ROLLBACK TO SAVEPOINT part')
            self._log.write('undo', unit=unit, tags=tags)
            if self._random.random() < .5:
                self.publish(unit)
        if self._random.random() < .3:
            time.sleep(self._random.uniform(0, .2))

    def _transaction(self, **options):
        return Transaction(new=True).start(self._database, 0, **options)

    def _execute(self, sql):
        Transaction().connection.cursor().execute(sql)


def main(path, name, end=None):
    task = json.loads(Path(path).read_text())
    log = Log(task['published'])
    stop, die = threading.Event(), threading.Event()
    if end:
        Publisher(task, name, log, die).end(task['clients'])
        return
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, lambda *_: die.set())
    threads = [
        threading.Thread(
            target=Publisher(task, f'{name}{letter}', log, die).run,
            args=(stop,))
        for letter in 'ab'[:task['threads']]]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Another thread may receive the signal, and it is handled here only
        # when this thread runs.
        while thread.is_alive():
            thread.join(.1)


if __name__ == '__main__':
    main(*sys.argv[1:])
