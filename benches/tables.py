"""Writes the tables of the docs from recorded runs: benches.tables.

A table stands between `<!-- recorded: NAMES -->` and `<!-- end -->`, where
NAMES are those of files in benches/results, of one run.
"""
import json
import re
import textwrap

from .record import RESULTS, ROOT
from .report import number

DOCS = ROOT / 'docs'
BLOCK = re.compile(
    r'(<!-- recorded: ([\w ]+) -->\n).*?(<!-- end -->)', re.DOTALL)
# Without the epoch and the revision of a Debian package
VERSION = re.compile(r'(?:\d+:)?([\d.]+)')
# Recorded, but not shown: the page has the rows with a goal and, of servers,
# those that a reader compares.
OMITTED = {
    "memory without a poll", "memory of a poll after load",
    "load's CPU of a delivery", "to the last of all, p99"}
FEWEST_POLLS = 1000


def main():
    for path, text in written().items():
        path.write_text(text)


def written():
    "The text that each page with tables is to have, by its path"
    pages = {path: path.read_text() for path in sorted(DOCS.glob('*.md'))}
    return {
        path: BLOCK.sub(block, text) for path, text in pages.items()
        if BLOCK.search(text)}


def block(found):
    head, names, end = found.groups()
    runs = [
        json.loads((RESULTS / f'{name}.json').read_text())
        for name in names.split()]
    rows = [row for run in runs for row in run['rows']]
    tables = {'server': servers, 'journal': journal}.get(names, sides)(rows)
    return '\n'.join([head, *tables, caption(runs), '', end])


def caption(runs):
    "What was measured when, of what and on what"
    last = runs[-1]
    versions = {'Python': last['machine']['python'], **last['versions']}
    text = "%s, %d cores (load %s at the start, %s at the end), %s" % (
        last['machine']['processor'], last['machine']['cores'],
        runs[0]['load']['start'], last['load']['end'],
        ', '.join(
            '%s %s' % (name, VERSION.match(version)[1])
            for name, version in versions.items()
            if name != 'trytond-fastbus'))
    return textwrap.fill(
        "%s; a release build of %s, `%s`, %s." % (
            text, last['commit'], last['command'], last['date'][:10]),
        79, break_on_hyphens=False)


def table(heads, rows):
    yield '| %s |' % ' | '.join(heads)
    yield '| --- |%s' % (' ---: |' * (len(heads) - 1))
    for cells in rows:
        yield '| %s |' % ' | '.join(cells)
    yield ''


def sides(rows):
    "Stock and ours; the ratio is how many times better ours is"
    return table(["", "stock", "ours", "ratio", "to reach", ""], [
            ["(%s) %s, %s" % (row['part'], row['text'], row['unit']),
                number(row['figures']['stock']),
                number(row['figures']['ours']),
                times(row['ratio']), goal(row), mark(row)]
            for row in rows if goal(row)])


def journal(rows):
    "Three sides: stock, and ours without and with the journal"
    groups, readers = {}, []
    for row in rows:
        if row['figures']['stock'] is None:
            readers.append(row)
            continue
        text = row['text'].removesuffix(", p99")
        key = 'median' if text == row['text'] else 'p99'
        base = text.removesuffix(", no journal")
        side = 'journal' if base == text else 'ours'
        groups.setdefault((base, row['unit']), {})[side, key] = row
    cells = []
    for (text, unit), found in groups.items():
        row = found['journal', 'median']
        if not goal(row):
            continue
        over, under = row['figures']['ours'], row['figures']['stock']
        least = row['least']
        cells.append([
                "%s, %s" % (text, unit),
                *(' / '.join(
                        number(found[side, key]['figures'][figure])
                        for key in ['median', 'p99'] if (side, key) in found)
                    for side, figure in [
                        ('journal', 'stock'), ('ours', 'ours'),
                        ('journal', 'ours')]),
                times(over / under),
                "" if not least else "≥ %s" % times(least) if row['rate']
                else "≤ %s" % times(1 / least),
                mark(row)])
    yield from table(
        ["median / 99 %", "stock", "no journal", "journal",
            "journal, of stock", "to reach", ""], cells)
    yield from table(["readers", "journal", "to reach", ""], [
            ["%s, %s" % (row['text'], row['unit']),
                number(row['figures']['ours']), goal(row), mark(row)]
            for row in readers if goal(row)])


def servers(rows):
    "A table for each number of polls, without what never happened"
    for polls in dict.fromkeys(
            row['polls'] for row in rows if row['polls'] >= FEWEST_POLLS):
        here = [row for row in rows if row['polls'] == polls]
        names = list(dict.fromkeys(row['server'] for row in here))
        figures = {}
        for row in here:
            figures.setdefault((row['text'], row['unit']), {})[
                row['server']] = row['figure']
        yield from table([f"{polls:,} polls", *names], [
                [', '.join(key), *(number(found[name]) for name in names)]
                for key, found in figures.items()
                if key[0] not in OMITTED and any(found.values())])


def goal(row):
    goals = []
    if row['most'] is not None:
        goals.append("≤ %s" % number(row['most']))
    if row['floor'] is not None:
        goals.append("≥ %s" % number(row['floor']))
    if row['least'] is not None:
        goals.append("≥ %s" % times(row['least']))
    return ', '.join(goals)


def mark(row):
    return {None: "", True: "yes", False: "**no**"}[row['reached']]


def times(ratio):
    return "" if ratio is None else "%s ×" % number(ratio)


if __name__ == '__main__':
    main()
