"""Compare the bus server with nginx and nchan: the same clients, in turns.

    python3 benches/load/compare.py [POLLS...]

nginx with nchan does less: it knows no sessions, and no client of its own
place in the history. It is left out if it isn't installed.
"""
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

TURNS = 3
ROUNDS = 10
HERE = Path(__file__).parent
NCHAN = Path('/usr/lib/nginx/modules/ngx_nchan_module.so')

# The label of the table, the line of `load` and which of its numbers
FIGURES = [
    ("bytes a waiting poll", 'bytes a waiting poll', 0),
    ("the same, after load", 'bytes a poll, after load', 0),
    ("to the last of all, p50 in ms", 'to the last of all', 0),
    ("to the last of all, p99 in ms", 'to the last of all', 1),
    ("to one among all, p50 in ms", 'to one among all', 0),
    ("to one among all, p99 in ms", 'to one among all', 1),
    ("deliveries a second", 'deliveries a second', 0),
    ("server's CPU a delivery in us", "server's CPU a delivery", 0),
    ("load's CPU a delivery in us", "load's CPU a delivery", 0),
    ("lost, the worst turn", 'lost, duplicated, failed', 0),
    ("duplicated, the worst turn", 'lost, duplicated, failed', 1),
    ("failed, the worst turn", 'lost, duplicated, failed', 2),
    ]


def build():
    subprocess.run(
        ['cargo', 'build', '-q', '--release', '--locked'], cwd=HERE,
        check=True)
    return HERE / 'target' / 'release'


def run(load, server, polls):
    "The numbers that one run prints, by its lines"
    result = subprocess.run(
        [load, server, str(polls), str(ROUNDS)], check=True,
        capture_output=True, text=True)
    lines = {}
    for line in result.stdout.splitlines():
        name, _, numbers = line.partition('  ')
        numbers = re.sub(r'\bp\d+\b', '', numbers)
        lines[name] = [float(n) for n in re.findall(r'[\d.]+', numbers)]
    return lines


def missing():
    "Why nchan can't be measured, if it can't"
    if not shutil.which('nginx'):
        return "nginx is not installed"
    if not NCHAN.exists():
        return f"there is no {NCHAN}"


def main(polls):
    release = build()
    servers = {'fastbus': release / 'bus-server'}
    if reason := missing():
        print(f"nchan is left out: {reason}\n")
    else:
        servers['nchan'] = shutil.which('nginx')
    for number in polls:
        runs = {name: [] for name in servers}
        for _ in range(TURNS):
            for name, server in servers.items():
                runs[name].append(run(release / 'load', server, number))
        show(number, runs)


def show(polls, runs):
    print(f"| {polls:,} polls | {' | '.join(runs)} | ratio |")
    print("| --- |" + " ---: |" * (len(runs) + 1))
    for label, line, index in FIGURES:
        middle = max if 'worst' in label else statistics.median
        values = [
            middle(lines[line][index] for lines in of_server)
            for of_server in runs.values()]
        cells = [f"{value:,.{0 if value >= 1000 else 2}f}".replace('.00', '')
            for value in values]
        # How many times better ours is
        if 'a second' in label:
            values.reverse()
        ratio = (f"{values[-1] / values[0]:.2f}"
            if len(values) > 1 and values[0] else "")
        print(f"| {label} | {' | '.join(cells)} | {ratio} |")
    shares = []
    for of_server in runs.values():
        load, server = (
            statistics.median(lines[line][0] for lines in of_server)
            for line in ("load's CPU a delivery", "server's CPU a delivery"))
        shares.append(f"{load / (load + server):.0%}")
    print(f"| load's part of the CPU | {' | '.join(shares)} | |\n", flush=True)


if __name__ == '__main__':
    main([int(polls) for polls in sys.argv[1:]] or [1_000, 10_000])
