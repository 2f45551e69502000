"""The cost of the journal for publishers."""
import statistics
import tempfile
import time

from tests.support.postgresql import PostgreSQL

from . import publish, readers, resume, sides
from .report import Row

TITLE = "(g) the journal, which ours has unless a row says otherwise"
NAMES = ['stock', 'ours', 'journal']
# PostgreSQL's default configuration. The other parts use a faster one.
DURABLE = {
    'fsync': 'on', 'synchronous_commit': 'on', 'full_page_writes': 'on',
    'autovacuum': 'on'}
# The number of messages in a transaction, and the greatest ratio of our time
# to stock's
COSTS = [(1, 1.6), (10, 1.3), (100, None)]
COMMITTERS = 8
MAKE = 'CREATE TABLE IF NOT EXISTS written (id bigserial, text text)'
# A transaction with only a NOTIFY does not wait for the disk. Those of users
# write.
WRITE = "INSERT INTO written (text) VALUES ('what a user has written')"


def run(postgresql, quick):
    with PostgreSQL(**DURABLE) as durable:
        yield from costs(durable, "fsync", quick, WRITE)
        yield from costs(durable, "fsync, no write", quick)
        yield from costs(postgresql, "no fsync", quick, WRITE)
        yield from committers(durable, "fsync", quick, WRITE)
        yield from committers(durable, "fsync, no write", quick)
        with tempfile.TemporaryDirectory() as path:
            directory = readers.Directory(path)
            yield from readers.catch_up(durable, directory, quick)
            yield from resume.run(durable, path, quick)
            yield from readers.across(directory, quick)


def costs(postgresql, setting, quick, write=None):
    "Rows of one committer"
    rounds, transactions = (5, 40) if quick else (25, 80)
    with sides.both(postgresql, NAMES) as all_sides:
        for side in all_sides:
            side(prepare)
        for count, most in COSTS:
            times = {name: [] for name in NAMES}
            for _ in range(rounds):
                for side in all_sides:
                    times[side.name].append(side(
                            commits, count,
                            max(transactions // count, 5), write))
            text = "%s, %d each" % (setting, count)
            for name in NAMES[1:]:
                yield from latencies(text, times, name, most)


def committers(postgresql, setting, quick, write=None):
    "Rows of several committers at a time"
    rounds, seconds = (3, .5) if quick else (8, 1)
    with sides.several(postgresql, NAMES, COMMITTERS) as groups:
        for group in groups.values():
            for side in group:
                side(prepare)
        for count in [1, 10]:
            rates = {name: [] for name in NAMES}
            times = {name: [] for name in NAMES}
            for _ in range(rounds):
                for name, group in groups.items():
                    found = together(group, count, seconds, write)
                    rates[name].append(len(found) / seconds)
                    times[name].append(found)
            text = "%d at once, %s, %d each" % (COMMITTERS, setting, count)
            for name in NAMES[1:]:
                yield Row(
                    'g', text + suffix(name), 'commits/s',
                    rates['stock'], rates[name], rate=True,
                    least=.7 if name == 'journal' else None,
                    statistic='median')
            if count > 1:
                yield Row(
                    'g', text, 'messages/s',
                    *([count * rate for rate in rates[name]]
                        for name in ['stock', 'journal']),
                    rate=True, statistic='median')
            yield from latencies(text, times, 'journal')


def latencies(text, times, name, most=None):
    "Rows of the times of commits, from the lists of the rounds"
    text += suffix(name)
    yield Row(
        'g', text, 'ms',
        *([statistics.median(times) for times in times[name]]
            for name in ['stock', name]),
        least=1 / most if most and name == 'journal' else None,
        statistic='median')
    yield Row(
        'g', text + ", p99", 'ms',
        *([percentile(sum(times[name], []))] for name in ['stock', name]))


def suffix(name):
    return ", no journal" if name == 'ours' else ""


def percentile(times, part=.99):
    return sorted(times)[min(int(len(times) * part), len(times) - 1)]


def together(group, count, seconds, write):
    "The milliseconds of all commits of the processes in this time"
    # The clock is the machine's.
    begin = time.monotonic() + .05
    for side in group:
        side.start(commits_until, count, begin, begin + seconds, write)
    return [time for side in group for time in side.result()]


def prepare(database):
    from trytond.transaction import Transaction
    with Transaction().start(database, 0) as transaction:
        transaction.connection.cursor().execute(MAKE)
        transaction.commit()
    commits(database, 1, 20, WRITE)


def commits(database, count, transactions, write):
    "The milliseconds of each"
    return [
        publish.commit(database, count, write) * 1e3
        for _ in range(transactions)]


def commits_until(database, count, begin, end, write):
    times = []
    time.sleep(max(begin - time.monotonic(), 0))
    while time.monotonic() < end:
        times.append(publish.commit(database, count, write) * 1e3)
    return times
