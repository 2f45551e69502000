"""The faults of servers, publishers and PostgreSQL.

Each is a function that makes the fault, keeps it up if it lasts, and returns
when everything works again.
"""
import random
import signal
import subprocess
import threading
import time
from collections import Counter

from trytond_fastbus.journal import schema

# The database
NAME = 'faults'
# Seconds for which a program stays frozen or stopped
SHORTEST, LONGEST = .3, 4
# Searches for at most a second and a half
COMMITS = """
DO $$ BEGIN
    FOR n IN 1..500 LOOP
        PERFORM pg_stat_clear_snapshot();
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE state = 'active' AND query ILIKE 'COMMIT%';
        EXIT WHEN FOUND;
        PERFORM pg_sleep(.002);
    END LOOP;
END $$
"""


def kill(fault, target):
    target.kill()
    fault.restart(target)


def terminate(fault, target):
    target.signal(signal.SIGTERM)
    try:
        target.process.wait(60)
    except subprocess.TimeoutExpired:
        fault.counts["SIGTERM ignored for 20 s"] += 1
        target.kill()
    fault.restart(target)


def die(fault, target):
    "A publisher that is killed in COMMIT"
    target.signal(signal.SIGUSR1)
    try:
        target.process.wait(60)
    except subprocess.TimeoutExpired:
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


def drop(fault, proxy):
    "Requests and answers under way are lost."
    proxy.freeze()
    try:
        fault.last()
        proxy.cut()
    finally:
        proxy.thaw()


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
        pass  # PostgreSQL is down because of another fault


def end_commits(fault, postgresql):
    "End the connections that are in COMMIT now"
    try:
        postgresql.execute(COMMITS)
    except RuntimeError:
        pass


def move_numbers_back(fault, postgresql):
    """The rows get the lowest numbers, as after a copy into a new table.

    Then the sequence goes ahead, since numbers without gaps would stay the
    same at the next copy.
    """
    journal(postgresql, """
        BEGIN;
        LOCK TABLE {table};
        CREATE TEMP TABLE kept AS TABLE {table};
        TRUNCATE {table} RESTART IDENTITY;
        INSERT INTO {table} (seq, created, channel, message, notify)
            SELECT nextval('{table}_seq'), created, channel, message, notify
            FROM (SELECT * FROM kept ORDER BY seq) AS kept;
        SELECT setval('{table}_seq', nextval('{table}_seq') + 1000);
        COMMIT""")


def drop_table(fault, postgresql):
    "The table is dropped, and the rows are restored into a new one"
    journal(postgresql, """
        BEGIN;
        LOCK TABLE {table};
        CREATE TEMP TABLE kept AS TABLE {table};
        DROP TABLE {table};
        {make}
        INSERT INTO {table} (seq, created, channel, message, notify)
            SELECT nextval('{table}_seq'), created, channel, message, notify
            FROM (SELECT * FROM kept ORDER BY seq) AS kept;
        COMMIT""")


def set_sequence_back(fault, postgresql):
    journal(postgresql, "SELECT setval('{table}_seq', 1)")


def forge(fault, postgresql):
    """A role without privileges notifies numbers without a row, among them
    that of the next row"""
    for number in ['1', str(2 ** 62), 'last_value + 1', 'last_value + 2']:
        journal(postgresql, """
            SELECT pg_notify('bus', concat('{{"channel":"forged","message":'
                '{{"message_id":"', gen_random_uuid(), '"}},"table":',
                '{table}'::regclass::oid, ',"seq":', %s, '}}')),
            pg_notify('bus.part', concat(%s))
            FROM {table}_seq""" % (number, number))


def set_clock_forward(fault, postgresql):
    "Rows come from the future, until the clock of PostgreSQL is right again"
    clock = 'pg_catalog.clock_timestamp()'
    ahead = clock + " + interval ''1 hour''"
    try:
        replace(postgresql, clock, ahead)
        fault.last()
    finally:
        replace(postgresql, ahead, clock)


def set_clock_back(fault, postgresql):
    """The clock of the database steps back, and all sessions are new.

    It never steps forward again, because rows would then expire.
    """
    journal(postgresql, """
        LOCK TABLE {table};
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        DO $do$
        DECLARE
            behind interval := timeofday()::timestamptz - clock_timestamp();
        BEGIN
            EXECUTE format(
                'CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() '
                'RETURNS timestamptz LANGUAGE sql VOLATILE AS %L', format(
                    'SELECT pg_catalog.timeofday()::pg_catalog.timestamptz '
                    'OPERATOR(pg_catalog.-) %L::pg_catalog.interval',
                    behind + interval '1 hour'));
        END $do$""")


def time_out(fault, postgresql):
    "PostgreSQL ends sessions that are idle, also those in a transaction"
    names = ['idle_session_timeout', 'idle_in_transaction_session_timeout']
    change = ';'.join(f"ALTER DATABASE {NAME} SET {name} = 500"
        for name in names)
    try:
        journal(postgresql, change)
        end_backends(fault, postgresql)
        fault.last()
    finally:
        journal(postgresql, change.replace('= 500', 'TO DEFAULT'))


def replace(postgresql, old, new):
    "Replace a text in the function of the journal"
    journal(postgresql, f"""
        DO $do$ BEGIN EXECUTE (
            SELECT replace(pg_get_functiondef(oid), '{old}', '{new}')
            FROM pg_proc WHERE proname = '{{table}}_commit');
        END $do$""")


def journal(postgresql, sql):
    "Execute statements on the table of the journal"
    try:
        postgresql.execute(
            "SET lock_timeout = '3s'; " + sql.format(
                table=schema.TABLE, make=schema.MAKE), NAME)
    except RuntimeError:
        pass  # PostgreSQL is down because of another fault, or has locks


class Deck:
    """The faults in random order. Each comes once before any comes again.

    A fault is a triple: a function, the name of its target, and a pair of the
    target and a lock.
    """

    def __init__(self, world, seed, names=None):
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._left = []
        self._all = []
        for name, targets, kinds in [
                ('server', world.mortal, [kill, kill, terminate, stop]),
                ('server', world.steady, [stop]),
                ('publisher', world.publishers, [kill, die, stop]),
                ('PostgreSQL', filter(None, [world.postgresql]), [
                        crash, end_backends, end_commits, time_out]),
                ('connections', world.proxies, [freeze, cut, drop]),
                ('journal', filter(None, [world.has_journal
                        and world.postgresql]), [
                        move_numbers_back, drop_table, set_sequence_back,
                        forge, set_clock_forward, set_clock_back]),
                ]:
            targets = [(target, threading.Lock()) for target in targets]
            if targets and (not names or name in names):
                self._all += [(kind, name, targets) for kind in kinds]

    def draw(self):
        with self._lock:
            if not self._left:
                self._left = self._random.sample(self._all, len(self._all))
            kind, name, targets = self._left.pop()
            return kind, name, self._random.choice(targets)


class Fault:
    "Makes one fault after the other, in a thread, until it is ended"

    def __init__(self, deck, seed, counts, pause):
        self.random = random.Random(seed)
        self.counts = counts
        self.ended = threading.Event()
        self.error = None
        self._deck = deck
        self._pause = pause
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            while not self.ended.wait(self.random.uniform(.1, self._pause)):
                kind, name, (target, lock) = self._deck.draw()
                # Two faults have one target one after the other.
                with lock:
                    if not self.ended.is_set():
                        self.counts[f'{kind.__name__} {name}'] += 1
                        kind(self, target)
        except BaseException as error:
            self.error = error

    def last(self):
        "Wait while this fault lasts"
        self.ended.wait(self.random.uniform(SHORTEST, LONGEST))

    def restart(self, target):
        if self.random.random() < .3:
            self.last()
        for _ in range(5):
            try:
                target.start()
                return
            except RuntimeError:
                pass  # PostgreSQL may be down at that moment
        raise RuntimeError(f"does not start again: {target}")

    def join(self):
        self._thread.join()
        if self.error:
            raise self.error


def make(world, seconds, seed, names=None, pause=1, number=2):
    """Make this number of faults at a time for this time, of all faults or of
    the named ones, each after a pause of at most these seconds. Return their
    counts by kind."""
    deck = Deck(world, f'{seed} faults', names)
    counts = Counter()
    faults = [Fault(deck, f'{seed} {n}', counts, pause) for n in range(number)]
    try:
        time.sleep(seconds)
    finally:
        for fault in faults:
            fault.ended.set()
        for fault in faults:
            fault.join()
    return counts
