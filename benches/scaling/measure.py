"""The command that holds many polls on several servers and restarts them:
python -m benches.scaling.measure 10000 50000 100000"""
import argparse
import signal
import time

from .. import record, report
from ..programs import build
from .site import DATABASE, Site

ROUNDS = 5
# The clients of a server when one of the others is down, below the usual limit
# of descriptors
POLLS_MAX = 17_000
# The clients that connect in a second
RATE = 3000


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches.scaling.measure',
        description="Hold polls on several servers of one port, publish to "
        "all of them, and restart the servers.")
    parser.add_argument('clients', nargs='+', type=int)
    parser.add_argument(
        '--servers', type=int,
        help="default: as few as can hold them while one is down")
    parser.add_argument(
        '--sockets', choices=['share', 'held', 'own'], default='held')
    parser.add_argument('--json', metavar='FILE')
    options = parser.parse_args()
    build()
    rows = []
    for clients in options.clients:
        servers = options.servers or -(-clients // POLLS_MAX) + 1
        with Site(clients, servers, options.sockets) as site:
            recorded = record.Run('benches.scaling.measure', site.postgresql)
            print(recorded)
            title = "%s polls, %d servers" % (format(clients, ','), servers)
            part = []
            for row in run(site, title):
                report.print_part('', [row])
                part.append(row)
            rows += part
            if options.json:
                recorded.write(
                    options.json, [row.asdict() for row in rows])


def run(site, title):
    "The figures, one after the other"
    def row(text, unit, *values):
        return report.Row(
            'scale', "%s: %s" % (title, text), unit, [], list(values),
            statistic='median')

    memory, used, begun = site.memory(), site.cpu(), time.time()
    site.connect(RATE)
    spread = site.wait()
    yield row("until all wait", 's', time.time() - begun)
    yield row("polls at a server, the least and the most", '',
        min(spread), max(spread))
    yield from spent(site, row, "to take a poll in", used)
    now = site.memory()
    for what, text in [
            ('servers', "memory of the servers for a poll"),
            ('kernel', "memory of the kernel for both ends of a poll")]:
        yield row(text, 'bytes', (now[what] - memory[what]) / site.clients)
    yield row("connections to PostgreSQL", '', connections(site))

    used, firsts, medians, lasts = site.cpu(), [], [], []
    for _ in range(ROUNDS):
        at, seen = deliver(site)
        firsts.append((seen['first'] - at) * 1e3)
        medians.append((seen['median'] - at) * 1e3)
        lasts.append((seen['last'] - at) * 1e3)
    yield row("commit to the first of all", 'ms', *firsts)
    yield row("commit to the one in the middle", 'ms', *medians)
    yield row("commit to the last of all", 'ms', *lasts)
    yield from spent(
        site, row, "of a delivery and the next poll", used, ROUNDS)
    now = site.memory()
    yield row("memory of the servers for a poll, after load", 'bytes',
        (now['servers'] - memory['servers']) / site.clients)

    for text, places, number in [
            ("one server restarted", [0], signal.SIGTERM),
            ("one server killed", [0], signal.SIGKILL),
            ("all servers restarted", range(site.number), signal.SIGTERM)]:
        site.begin()
        took = restart(site, places, number)
        seen = site.seen()
        yield row("%s, until all wait" % text, 's', took)
        for what in [
                'lost', 'twice', 'refused', 'cut', 'cut_late', 'cut_reset',
                'late', 'failed']:
            yield row("%s, %s" % (text, what), '', seen[what])


def deliver(site):
    "Publish to all; return the time, and the counts of the clients"
    site.begin()
    at = site.publish()
    end = time.monotonic() + 120
    while (seen := site.seen())['messages'] < site.clients:
        if time.monotonic() > end:
            raise TimeoutError(f"not all have the message: {seen}")
        time.sleep(.05)
    site.wait()
    return at, seen


def restart(site, places, number):
    """Restart the servers one after the other, with a message to all
    meanwhile; return the seconds until all wait again"""
    begun = time.time()
    old = {place: site.servers[place] for place in places}
    for server in old.values():
        server.signal(number)
    site.publish()
    while old:
        for place, server in list(old.items()):
            if server.process.poll() is not None:
                site.servers[place] = site.server(place)
                site.servers[place].start()
                del old[place]
        time.sleep(.02)
    end = time.monotonic() + 600
    while True:
        site.wait()
        if site.seen()['messages'] == site.clients:
            return time.time() - begun
        if time.monotonic() > end:
            raise TimeoutError(f"not all have the message: {site.seen()}")


def spent(site, row, text, before, rounds=1):
    "The rows of CPU for each client"
    now = site.cpu()
    for what in now:
        yield row("CPU of %s %s" % (
                {'postgresql': "PostgreSQL"}.get(what, "the " + what), text),
            'µs', (now[what] - before[what]) * 1e6 / site.clients / rounds)


def connections(site):
    "How many connections the servers have to PostgreSQL"
    (count,), = site.connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s "
        "AND pid <> pg_backend_pid()", [DATABASE]).fetchall()
    return count


if __name__ == '__main__':
    main()
