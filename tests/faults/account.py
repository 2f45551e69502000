"""What a server holds while nobody wants anything of it, and whether that
grows.

A server is compared with itself: once warm, each rest has to find it as the
first one did. Its memory may vary, by what lies between free pieces, but not
rise with time; neither may its connections to the database, which a pool
keeps. It is asked to give back what is free first: what an allocator keeps of
the busiest moment so far is no leak (see collector/), and trytond leaves its
connections on SQLite to Python's collector, since sqlite3 has each refer to
itself.
"""
import os
import signal
import time
from pathlib import Path
from statistics import median

from support.server import BusServer

# How much the median of the last third may exceed that of the third before. A
# fault may have emptied a pool just before a rest.
GROWTH = {'kilobytes': 2048, 'database connections': 2}
# The module that a server imports at its start, so that its resources can be
# read
COLLECTOR = Path(__file__).parent / 'collector'
METRICS = ['tasks', 'connections', 'polls_waiting']
TABLES = {'tcp', 'tcp6', 'udp', 'udp6', 'unix', 'netlink'}
NONE = {'connections', 'polls_waiting'}


def take(server, ports, file):
    """Return by name the resources that the server holds now, after it has
    given back free memory.

    ports are those of the database on PostgreSQL, file is that on SQLite.
    """
    process = Path(f'/proc/{server.process.pid}')
    rollup = dict(
        line.split(':') for line in
        (process / 'smaps_rollup').read_text().splitlines()[1:])
    sockets, files, logs = set(), 0, 0
    descriptors = 0
    for descriptor in os.scandir(process / 'fd'):
        try:
            target = os.readlink(descriptor.path)
        except FileNotFoundError:
            continue  # the descriptor was closed meanwhile
        descriptors += 1
        if target.startswith('socket:'):
            sockets.add(target[8:-1])
        files += target.startswith(str(file))
        logs += target == f'{file}-wal'
    pool = len(
        sockets & connected_to(process, ports) | closed(process, sockets))
    server.process.send_signal(signal.SIGUSR2)
    account = {
        'kilobytes': int(rollup['Anonymous'].split()[0]),
        # SQLite keeps the descriptors of closed files for the next ones, but
        # not those of the write-ahead log.
        'database connections': pool + logs,
        'descriptors': descriptors - pool - files,
        'threads': len(list((process / 'task').iterdir())),
        }
    if isinstance(server, BusServer):
        account |= {name: int(server.metric(name)) for name in METRICS}
    return account


def connected_to(process, ports):
    "Return the inodes of the sockets of this machine that go to the ports"
    lines = (process / 'net/tcp').read_text().splitlines()[1:]
    return {
        fields[9] for fields in map(str.split, lines)
        if int(fields[2].rpartition(':')[2], 16) in ports}


def closed(process, sockets):
    """Return the sockets that are in no table of the kernel: connections that
    were reset, unnoticed by the pool"""
    known = set()
    for path in (process / 'net').iterdir():
        if path.name in TABLES:
            known.update(path.read_text().split())
    return sockets - known


def settle(server, ports, file, seconds):
    """Return by name the minimum that the server holds within these seconds,
    in which nothing is sent to it"""
    least = take(server, ports, file)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(1)
        for name, value in take(server, ports, file).items():
            least[name] = min(least[name], value)
    return least


def exceeded(account, first):
    """Yield a sentence for each resource that has grown, and for each that
    must be zero"""
    for name, value in account.items():
        most = 0 if name in NONE else first[name]
        if name not in GROWTH and value > most:
            yield f"{value} {name} instead of {most}"


def check(name, accounts):
    "Return the faults in the accounts of a server, as sentences"
    # A value that only one rest finds may be temporary. A leak stays.
    kept = [
        {key: min(value, before[key]) for key, value in account.items()}
        for before, account in zip(accounts, accounts[1:], strict=False)]
    violations = [
        f"The rests {number} and {number + 1} found {excess} in {name}."
        for number, account in enumerate(kept, 1)
        for excess in exceeded(account, accounts[0])]
    third = len(accounts) // 3
    if third >= 3:
        for key, limit in GROWTH.items():
            values = [account[key] for account in accounts]
            before, after = values[third:-third], values[-third:]
            if median(after) > median(before) + limit:
                violations.append(
                    f"The {key} of {name} grow with time: {values}.")
    return violations
