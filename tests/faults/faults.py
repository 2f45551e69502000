"""The faults: what happens at random to servers, publishers and PostgreSQL.

Each is a function that makes the fault, keeps it up if it lasts, and has all
at work again when it returns.
"""
import random
import signal
import subprocess
import threading
from collections import Counter

# Seconds that what is frozen or stopped stays so
SHORTEST, LONGEST = .3, 4


def kill(fault, target):
    target.kill()
    fault.restart(target)


def terminate(fault, target):
    target.signal(signal.SIGTERM)
    try:
        target.process.wait(20)
    except subprocess.TimeoutExpired:
        fault.counts["SIGTERM ignored for 20 s"] += 1
        target.kill()
    fault.restart(target)


def stop(fault, target):
    target.signal(signal.SIGSTOP)
    try:
        fault.last()
    finally:
        target.signal(signal.SIGCONT)


def freeze(fault, proxy):
    proxy.freeze()
    try:
        fault.last()
    finally:
        proxy.thaw()


def cut(fault, proxy):
    proxy.cut()


def crash(fault, postgresql):
    postgresql.stop('immediate')
    try:
        if fault.random.random() < .3:
            fault.last()
    finally:
        postgresql.start()


def end_backends(fault, postgresql):
    part = fault.random.choice([.2, .5, 1])
    try:
        postgresql.terminate_backends(f'random() <= {part}')
    except RuntimeError:
        pass  # it is down by another fault


class Fault:
    "Makes one fault after the other, in a thread"

    def __init__(self, world, seed, targets, counts):
        self.random = random.Random(seed)
        self.counts = counts
        self._targets = targets
        self._ended = threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            while not self._ended.wait(self.random.uniform(.1, 1.5)):
                name, choices = self.random.choice(self._targets)
                kind = self.random.choice(choices['kinds'])
                index = self.random.randrange(len(choices['of']))
                # Two faults have one target one after the other
                with choices['locks'][index]:
                    if not self._ended.is_set():
                        self.counts[f'{kind.__name__} {name}'] += 1
                        kind(self, choices['of'][index])
        except BaseException as error:
            self.error = error

    def last(self):
        "Wait as long as this fault lasts"
        self._ended.wait(self.random.uniform(SHORTEST, LONGEST))

    def restart(self, target):
        if self.random.random() < .3:
            self.last()
        for _ in range(5):
            try:
                target.start()
                return
            except RuntimeError:
                pass  # PostgreSQL may be away at that moment
        raise RuntimeError(f"does not start again: {target}")

    def end(self):
        self._ended.set()
        self._thread.join()
        if self.error:
            raise self.error


def make(world, seconds, seed, number=2):
    "Have so many faults at a time for so long, and return counts by kind"
    targets = [
        ('server', world.servers, [kill, kill, terminate, stop]),
        ('publisher', world.publishers, [kill, stop]),
        ]
    if world.postgresql:
        targets += [
            ('PostgreSQL', [world.postgresql], [
                    crash, end_backends, end_backends]),
            ('connections', world.proxies, [freeze, cut]),
            ]
    targets = [
        (name, {
            'of': of, 'kinds': kinds, 'locks': [threading.Lock() for _ in of]})
        for name, of, kinds in targets]
    counts = Counter()
    faults = [
        Fault(world, f'{seed} fault {n}', targets, counts)
        for n in range(number)]
    try:
        threading.Event().wait(seconds)
    finally:
        for fault in faults:
            fault._ended.set()
        for fault in faults:
            fault.end()
    return counts
