"""The figures of a run, as a table and as JSON."""
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass, field

WIDTH = 66


@dataclass
class Row:
    """One figure of the two sides, from samples taken in turns.

    stock is empty where it has nothing that compares. least is the least
    ratio of stock's figure to ours to reach, most the most that ours may be.
    Of a rate more is better: the ratio is that of ours to stock's, and floor
    the least that ours may be.
    """
    part: str
    text: str
    unit: str
    stock: list
    ours: list
    least: float = None
    most: float = None
    rate: bool = False
    floor: float = None
    # Of work that only needs the processor the minimum is the least
    # disturbed by what else the machine does.
    statistic: str = 'minimum'
    figures: dict = field(init=False)

    def __post_init__(self):
        figure = {'minimum': min, 'median': statistics.median}[self.statistic]
        self.figures = {
            'stock': figure(self.stock) if self.stock else None,
            'ours': figure(self.ours)}

    @property
    def ratio(self):
        over, under = self.figures['stock'], self.figures['ours']
        if self.rate:
            over, under = under, over
        if over is None or under is None or under <= 0:
            return None
        return over / under

    @property
    def reached(self):
        "Whether what is to be reached is, None if there is nothing"
        if self.least is None and self.most is None and self.floor is None:
            return None
        return (
            (self.least is None or (self.ratio or 0) >= self.least)
            and (self.most is None or self.figures['ours'] <= self.most)
            and (self.floor is None or self.figures['ours'] >= self.floor))

    def cells(self):
        goals = []
        if self.most is not None:
            goals.append("<= %s" % _number(self.most))
        if self.floor is not None:
            goals.append(">= %s" % _number(self.floor))
        if self.least is not None:
            goals.append(">= %s x" % _number(self.least))
        mark = {None: "", True: "yes", False: "NO"}[self.reached]
        return [
            "%s, %s%s" % (
                self.text, self.unit,
                ", median" if self.statistic == 'median' else ""),
            _number(self.figures['stock']), _number(self.figures['ours']),
            "%s x" % _number(self.ratio) if self.ratio else "",
            ", ".join(goals), mark]


def _number(value):
    if value is None:
        return ''
    if abs(value) >= 1000:
        return format(value, ',.0f')
    return '%.3g' % value


def print_head():
    print(machine_line())
    _print_cells(["", "stock", "ours", "ratio", "to reach", ""])


def print_part(title, rows):
    if title:
        print(title)
    for row in rows:
        _print_cells(row.cells())


def _print_cells(cells):
    text, stock, ours, ratio, goal, reached = cells
    print(f"  {text:<{WIDTH}}{stock:>9}{ours:>9}{ratio:>9}  "
        f"{goal:<16}{reached}".rstrip(), flush=True)


def machine():
    "What the figures depend on"
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
        'load': round(os.getloadavg()[0], 2),
        'system': platform.platform(),
        'python': platform.python_version(),
        }


def versions(postgresql):
    "The versions of what takes part"
    packages = [
        'trytond', 'trytond-fastbus', 'psycopg', 'psycopg-c',
        'psycopg-binary']
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    found['postgresql'] = postgresql.execute('SHOW server_version')[0][0]
    return found


def machine_line():
    values = machine()
    return ("%(processor)s, %(cores)s cores, load %(load)s, "
        "Python %(python)s" % values)


def commit():
    "The commit of the repository, with + if files were changed since"
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty=+'], check=True,
            text=True, capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path, rows, postgresql, command):
    with open(path, 'w') as file:
        json.dump({
                'date': datetime.datetime.now(
                    datetime.timezone.utc).isoformat(timespec='seconds'),
                'command': command,
                'commit': commit(),
                'machine': machine(),
                'versions': versions(postgresql),
                'rows': [
                    {**asdict(row), 'ratio': row.ratio,
                        'reached': row.reached}
                    for row in rows],
                }, file, indent=1)
        file.write('\n')
