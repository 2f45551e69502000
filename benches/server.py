"""Long polls at trytond with the stock bus and with ours, at trytond-bus and
at nginx with nchan: the same clients (benches/load), in turns.

    python -m benches.server [POLLS...]

Each client has a session of its own. nginx with nchan does less: it knows no
sessions, and no client of its own place in the history. `nchan, checked` asks
a location that answers at once for each poll. `bus-server` is trytond-bus
without Python: each session is valid. nchan is left out if it isn't installed.
"""
import argparse
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from tests.support.postgresql import PostgreSQL

from . import record, tryton
from .programs import build

NCHAN = Path('/usr/lib/nginx/modules/ngx_nchan_module.so')
# The turns and rounds for a number of polls. trytond needs milliseconds of a
# core for each poll, so it has fewer.
PLANS = {
    'fast': {100: (3, 10), 1000: (3, 10), 10_000: (3, 5)},
    'slow': {100: (3, 2), 1000: (3, 1)},
    }
QUICK = {
    'fast': {100: (1, 2), 1000: (1, 2)},
    'slow': {100: (1, 1)},
    }

# The quantity, its unit, the line of `load`, and its number there
FIGURES = [
    ("all come, until all wait", 'ms', 'all come, until all wait', 0),
    ("server's CPU to take a poll in", 'us', 'CPU to take a poll in', 0),
    ("database's CPU to take a poll in", 'us', 'CPU to take a poll in', 1),
    ("server's CPU at rest", '%', 'CPU at rest', 0),
    ("database's CPU at rest", '%', 'CPU at rest', 1),
    ("after silence, to the last of all", 'ms', 'after silence', 0),
    ("after silence, until all wait again", 'ms', 'after silence', 1),
    ("after silence, server's CPU of a delivery", 'us',
        'CPU after silence', 0),
    ("after silence, database's CPU of a delivery", 'us',
        'CPU after silence', 1),
    ("memory without a poll", 'bytes', 'bytes without a poll', 0),
    ("memory of a waiting poll", 'bytes', 'bytes a waiting poll', 0),
    ("memory of a poll after load", 'bytes', 'bytes a poll, after load', 0),
    ("to the last of all, p50", 'ms', 'to the last of all', 0),
    ("to the last of all, p99", 'ms', 'to the last of all', 1),
    ("to one among all, p50", 'ms', 'to one among all', 0),
    ("to one among all, p99", 'ms', 'to one among all', 1),
    ("deliveries", '1/s', 'deliveries a second', 0),
    ("server's CPU of a delivery", 'us', "server's CPU a delivery", 0),
    ("load's CPU of a delivery", 'us', "load's CPU a delivery", 0),
    ("lost", 'messages', 'lost, twice, order, failed', 0),
    ("received twice", 'messages', 'lost, twice, order, failed', 1),
    ("out of order", 'messages', 'lost, twice, order, failed', 2),
    ("failed", 'polls', 'lost, twice, order, failed', 3),
    ]


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches.server', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'polls', nargs='*', type=int, metavar='POLLS',
        help="only these numbers of polls")
    parser.add_argument(
        '--only', action='append', metavar='SERVER', help="only this server")
    parser.add_argument(
        '--turns', type=int, metavar='N', help="at most so many turns")
    record.add_options(parser)
    options = record.parse(parser)
    if options.record and (options.polls or options.only):
        parser.error("a part of a run is not recorded")
    release = build()
    with PostgreSQL() as postgresql:
        tryton.create(postgresql)
        servers = commands(release, postgresql.uri)
        if reason := missing():
            print(f"nchan is left out: {reason}\n")
            servers = {
                name: command for name, command in servers.items()
                if not name.startswith('nchan')}
        run = record.Run('benches.server', postgresql, **versions())
        print(run)
        plans = QUICK if options.quick else PLANS
        rows = []
        for polls in sorted({*plans['slow'], *plans['fast']}):
            if options.polls and polls not in options.polls:
                continue
            plan = {
                name: plans['slow' if is_slow(name) else 'fast'].get(polls)
                for name in options.only or servers}
            plan = {name: planned for name, planned in plan.items() if planned}
            if options.turns:
                plan = {
                    name: (min(turns, options.turns), rounds)
                    for name, (turns, rounds) in plan.items()}
            measured = measure(release / 'load', servers, polls, plan)
            show(polls, measured)
            rows += measured
            # The rows so far are kept if the next measurement fails.
            if options.record:
                run.write(record.RESULTS / 'server.json', rows)
            if options.json:
                run.write(options.json, rows)


def missing():
    "The reason why nchan can't be measured, or None"
    if not shutil.which('nginx'):
        return "nginx is not installed"
    if not NCHAN.exists():
        return f"there is no {NCHAN}"


def versions():
    "The versions of programs that trytond does not use"
    found = {}
    for package in ['nginx', 'libnginx-mod-nchan']:
        try:
            found[package] = subprocess.run(
                ['dpkg-query', '-Wf', '${Version}', package], check=True,
                capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):
            pass
    return found


def commands(release, uri):
    "The command that `load` starts for each server"
    found = {
        name: (sys.executable, '-m', 'benches.tryton', name, uri)
        for name in tryton.SERVERS}
    found['bus-server'] = (release / 'bus-server',)
    found['nchan'] = (shutil.which('nginx'),)
    found['nchan, checked'] = (shutil.which('nginx'), 'checked')
    return found


def is_slow(name):
    return name.startswith(('stock', 'fastbus'))


def measure(load, servers, polls, plan):
    """The rows of this number of polls; plan has turns and rounds of each
    server"""
    runs = {name: [] for name in plan}
    for turn in range(max(turns for turns, _ in plan.values())):
        for name, (turns, rounds) in plan.items():
            if turn < turns:
                runs[name].append(once(load, servers[name], polls, rounds))
    return [
        {
            'part': 'server', 'server': name, 'polls': polls, 'text': text,
            'unit': unit, 'samples': samples,
            # For faults, the worst turn counts.
            'figure': (max if unit in {'messages', 'polls'}
                else statistics.median)(samples),
            }
        for name, lines in runs.items()
        for text, unit, line, index in FIGURES if line in lines[0]
        for samples in [[numbers[line][index] for numbers in lines]]]


def once(load, server, polls, rounds):
    "The numbers that one run prints, by its lines"
    program, *arguments = server
    result = subprocess.run(
        [load, program, str(polls), str(rounds), *arguments], check=True,
        stdout=subprocess.PIPE, text=True)
    lines = {}
    for line in result.stdout.splitlines():
        name, _, numbers = line.partition('  ')
        numbers = re.sub(r'\bp\d+\b', '', numbers)
        lines[name] = [float(n) for n in re.findall(r'[\d.]+', numbers)]
    return lines


def show(polls, rows):
    "Print a table with a column for each server"
    names = list(dict.fromkeys(row['server'] for row in rows))
    print(f"| {polls:,} polls | {' | '.join(names)} |")
    print("| --- |" + " ---: |" * len(names))
    for text, unit, *_ in FIGURES:
        figures = [
            row['figure'] for row in rows if row['text'] == text]
        if not figures:
            continue
        cells = [f"{figure:,.{0 if figure >= 1000 else 2}f}"
            .replace('.00', '') for figure in figures]
        print(f"| {text}, {unit} | {' | '.join(cells)} |")
    print(flush=True)


if __name__ == '__main__':
    main()
