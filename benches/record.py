"""A run as a JSON file: the figures, the date, the versions and the machine.
"""
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benches' / 'results'
PACKAGES = [
    'trytond', 'trytond-fastbus', 'psycopg', 'gevent', 'werkzeug']


def add_options(parser):
    parser.add_argument(
        '--quick', action='store_true',
        help="fewer rounds and sizes: a look, no figures to quote")
    parser.add_argument(
        '--record', action='store_true',
        help="write the figures to benches/results, for the plots")
    parser.add_argument(
        '--json', metavar='FILE', help="write the figures to this file")


def parse(parser):
    options = parser.parse_args()
    if options.quick and options.record:
        parser.error("a quick run is not recorded")
    return options


class Run:
    "The circumstances at the begin of a run; prints as a line"

    def __init__(self, name, postgresql, **versions):
        self.command = shlex.join(['python', '-m', name, *sys.argv[1:]])
        self.commit = commit()
        self.machine = machine()
        self.load = load()
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                pass
        self.versions = {
            **versions,
            'postgresql': postgresql.execute('SHOW server_version')[0][0]}

    def __str__(self):
        return "%s, %s cores, load %s, Python %s" % (
            self.machine['processor'], self.machine['cores'], self.load,
            self.machine['python'])

    def write(self, path, rows):
        with open(path, 'w') as file:
            json.dump({
                    'date': datetime.datetime.now(
                        datetime.timezone.utc).isoformat(timespec='seconds'),
                    'command': self.command,
                    'commit': self.commit,
                    'machine': self.machine,
                    'load': {'start': self.load, 'end': load()},
                    'versions': self.versions,
                    'rows': rows,
                    }, file, indent=1)
            file.write('\n')


def machine():
    "The machine, which the figures depend on"
    model = platform.processor()
    try:
        with open('/proc/cpuinfo') as file:
            model = next(
                line.split(':', 1)[1].strip() for line in file
                if line.startswith('model name'))
    except (OSError, StopIteration):
        pass
    return {
        'processor': model,
        'cores': len(os.sched_getaffinity(0)),
        'system': platform.platform(),
        'python': platform.python_version(),
        }


def load():
    return round(os.getloadavg()[0], 2)


def commit():
    """The commit of the repository, with + if measured files were changed
    since"""
    def git(*arguments):
        return subprocess.run(
            ['git', *arguments], cwd=ROOT, check=True, text=True,
            stdout=subprocess.PIPE).stdout.strip()

    try:
        changed = git(
            'status', '--porcelain', '-uno', '--', '.',
            ':!benches/results', ':!docs', ':!*.md')
        return git('rev-parse', '--short', 'HEAD') + '+' * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None
