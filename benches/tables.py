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
# Recorded, but not shown: the page has the rows with a goal that a reader
# compares.
OMITTED = {
    "memory without a poll", "memory of a poll after load",
    "load's CPU of a delivery", "to the last of all, p99"}
# Parts of the names of other rows that are not shown: variants whose figures
# differ little, and counts of losses, which are all zero
VARIANTS = [
    " 0 retained, last", "1,000 retained, last", "50,000 retained, last",
    "10 a transaction", "1,000 a transaction", "resident", "1 channel",
    "no fsync", "once, fsync, 10 each", "write, 10 each", "come back"]
# The programs whose versions decide the figures
PROGRAMS = ['trytond', 'psycopg', 'gevent', 'postgresql', 'nginx']
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
    "The command, commit, date, machine and versions of the runs"
    last = runs[-1]
    versions = [
        '%s %s' % (name, VERSION.match(last['versions'][name])[1])
        for name in PROGRAMS if name in last['versions']]
    return textwrap.fill(
        "`%s` at %s, %s: %s, %d cores (load %s to %s), %s." % (
            last['command'], last['commit'], last['date'][:10],
            last['machine']['processor'], last['machine']['cores'],
            runs[0]['load']['start'], last['load']['end'],
            ', '.join(versions)),
        79, break_on_hyphens=False)


def table(heads, rows):
    yield '| %s |' % ' | '.join(heads)
    yield '| --- |%s' % (' ---: |' * (len(heads) - 1))
    for cells in rows:
        yield '| %s |' % ' | '.join(cells)
    yield ''


def sides(rows):
    "Stock and ours; the ratio is how many times better ours is"
    return table(["", "stock", "ours", "ratio"], [
            ["(%s) %s, %s" % (row['part'], row['text'], row['unit']),
                number(row['figures']['stock']),
                number(row['figures']['ours']), times(row['ratio'])]
            for row in rows if is_shown(row)])


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
        if not is_shown(row):
            continue
        over, under = row['figures']['ours'], row['figures']['stock']
        cells.append([
                "%s, %s" % (text, unit),
                *(' / '.join(
                        number(found[side, key]['figures'][figure])
                        for key in ['median', 'p99'] if (side, key) in found)
                    for side, figure in [
                        ('journal', 'stock'), ('ours', 'ours'),
                        ('journal', 'ours')]),
                times(over / under)])
    yield from table(
        ["median / 99 %", "stock", "no journal", "journal",
            "journal / stock"], cells)
    yield from table(["readers", "journal"], [
            ["%s, %s" % (row['text'], row['unit']),
                number(row['figures']['ours'])]
            for row in readers if is_shown(row)])


def servers(rows):
    "A table for each number of polls, without rows of zeros"
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


def is_shown(row):
    has_goal = any(
        row[name] is not None for name in ['most', 'floor', 'least'])
    text = ' ' + row['text']
    return has_goal and not any(part in text for part in VARIANTS)


def times(ratio):
    return "" if ratio is None else "%s ×" % number(ratio)


if __name__ == '__main__':
    main()
