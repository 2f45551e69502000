"""The needs of a million clients, computed from measured constants: python -m
benches.scaling.million"""
import argparse
import json
from dataclasses import asdict

from .storm import Storm, run

SERVERS = [4, 8, 16, 32, 64]
# Each server has three connections to a database: to listen, to check
# sessions, and to look for names.
CONNECTIONS = 3
# The average age at which a session is checked again, as a part of
# session_cache
RENEWED = .75
# A process can't have more descriptors than the system's default fs.nr_open.
DESCRIPTORS_MAX = 1_048_576

# Measured on the machine of docs/benchmarks.md: bytes, and seconds of CPU
MEASURED = {
    'poll_bytes': 3_500,
    'kernel_bytes': 3_800,
    'server_bytes': 45_000_000,
    'delivery_cpu': 37e-6,
    # Seconds to take a poll in, and to check its session again while it waits
    'check_cpu': 56e-6,
    'check_database': 16e-6,
    'renew_cpu': 14e-6,
    'renew_database': 10e-6,
    'notify_cpu': 50e-6,
    'notify_listener_cpu': 54e-6,
    }


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches.scaling.million',
        description="Compute what many clients need, and simulate restarts.")
    parser.add_argument('--clients', type=int, default=1_000_000)
    parser.add_argument('--database-cores', type=float, default=8)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--json', metavar='FILE')
    options = parser.parse_args()
    table = [
        compute(options.clients, servers, options.database_cores,
            options.seed)
        for servers in SERVERS]
    for name in table[0]:
        print(f"{name:<34}", *(
                f"{row[name]:>12,.6g}" for row in table))
    if options.json:
        with open(options.json, 'w') as file:
            json.dump({
                    'command': 'python -m benches.scaling.million',
                    'computed': True, 'seed': options.seed,
                    'clients': options.clients, 'measured': MEASURED,
                    'rows': table}, file, indent=1)
            file.write('\n')


def compute(
        clients, servers, database_cores=8, seed=1, session_cache=30,
        measured=MEASURED):
    """The needs of a number of clients on a number of servers, each on a core
    for Python and one more. Times are in seconds, sizes in bytes"""
    polls = -(-clients // servers)
    checks = clients / (session_cache * RENEWED)
    storm = Storm(
        clients, servers, check_cpu=measured['check_cpu'],
        check_database=measured['check_database'],
        database_cores=database_cores, seed=seed,
        # The number of polls that cost as much to take in
        background=checks * measured['renew_cpu'] / measured['check_cpu'])
    row = {
        'servers': servers,
        'polls of a server': polls,
        'descriptors of a server': polls + 100,
        'GB of a server': (
            measured['server_bytes'] + polls * measured['poll_bytes']) / 1e9,
        'GB of all, kernel included': (
            servers * measured['server_bytes'] + clients * (
                measured['poll_bytes'] + measured['kernel_bytes'])) / 1e9,
        'connections to PostgreSQL': servers * CONNECTIONS,
        'checks/s at rest': checks,
        'cores for checks, servers': checks * measured['renew_cpu'],
        'cores for checks, PostgreSQL': checks * measured['renew_database'],
        'polls taken in a second, at most': min(
            servers / measured['check_cpu'],
            database_cores / measured['check_database']),
        'NOTIFY/s of a core of PostgreSQL': 1 / (
            measured['notify_cpu']
            + servers * measured['notify_listener_cpu']),
        's to give all a message, 2 cores': (
            polls * measured['delivery_cpu'] / 2),
        }
    for name, changes in [
            ("one restarted", {}),
            ("one killed", {'kill': True}),
            ("all restarted", {'restarted': servers}),
            ("all restarted, drain = 60", {
                    'restarted': servers, 'drain': 60}),
            ]:
        try:
            result = run(Storm(**{**asdict(storm), **changes}))
        except TimeoutError:
            result = {'seconds': float('inf'), 'unchecked_most': clients}
        row['%s, s until all wait' % name] = result['seconds']
        row['%s, most unchecked' % name] = result['unchecked_most']
    return row


if __name__ == '__main__':
    main()
