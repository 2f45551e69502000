"""Runs everything under faults for a while, and reports the violations."""
import shutil
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import account, faults, sabotage
from .check import check, read_units
from .world import NAME, World

SHOWN = 20


def run(options):
    "Print the report, and return the number of violations"
    if options.directory:
        directory = Path(options.directory).absolute()
        directory.mkdir()
    else:
        directory = Path(tempfile.mkdtemp(prefix='faults-'))
    print(
        f"seed {options.seed}: {options.seconds} s, {options.database}, "
        f"{options.server}, journal {options.journal}, cache_timeout "
        f"{options.cache_timeout} s", flush=True)
    with World(directory, options) as world:
        if options.drop_lock:
            sabotage.drop_lock(world.postgresql, NAME)
        counts, accounts = Counter(), {}
        rounds = max(options.rounds, 1)
        for number in range(rounds):
            if options.faults == ['none']:
                time.sleep(options.seconds / rounds)
            else:
                counts += faults.make(
                    world, options.seconds / rounds,
                    f'{options.seed} {number}', options.faults, options.pause)
            if options.rounds:
                take_accounts(world, accounts, options.rest)
        lag = world.finish(options.deadline)
        published, received, ledger = world.logs()
        churned = world.churned()
    violations = check(published, received, ledger)
    for name, taken in accounts.items():
        violations += account.check(name, taken)
    if lag is None:
        violations.insert(0,
            f"Not every client had its last message {options.deadline} s "
            "after all was at work again.")
    print_counts(published, received, counts, lag)
    if churned:
        print("clients that came and went: " + ', '.join(
                f"{n} {kind} ({end})" for (kind, end), n in sorted(Counter(
                        (event['event'], str(event['end']))
                        for event in churned).items())))
    for violation in violations[:SHOWN]:
        print(violation)
    if violations:
        print(f"{len(violations)} violations; logs: {directory}")
    else:
        if not options.directory:
            shutil.rmtree(directory)
        print("no violations")
    return len(violations)


def take_accounts(world, accounts, seconds):
    """Append the resources of the steady servers to their accounts, and print
    them"""
    ports = {proxy.port for proxy in world.proxies}
    with world.rest(), ThreadPoolExecutor() as executor:
        for server, taken in zip(world.steady, executor.map(
                    lambda server: account.settle(
                        server, ports, world.file, seconds),
                    world.steady), strict=True):
            name = f'{type(server).__name__} at {server.port}'
            accounts.setdefault(name, []).append(taken)
            print(f"{time.strftime('%H:%M:%S')} {name}: " + ', '.join(
                    f"{value} {key}" for key, value in taken.items()),
                flush=True)


def print_counts(published, received, counts, lag):
    events = Counter(event['event'] for event in published)
    deliveries = sum(event['event'] == 'received' for event in received)
    units, _ = read_units(published)
    unknown = sum(
        unit.begun is not None and unit.outcome in {None, 'unknown'}
        for unit in units.values())
    print(
        f"{len(units)} transactions, {events['rolled back']} rolled back, "
        f"{unknown} whose end only the database knows; "
        f"{events['publish']} messages, {deliveries} deliveries")
    print("faults: " + (
            ', '.join(f"{n} {kind}" for kind, n in sorted(counts.items()))
            or "none"))
    if lag is not None:
        print(f"all was delivered {lag:.1f} s after the end")
