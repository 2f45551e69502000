"""The command that measures both sides and prints a table."""
import argparse
import os
import shlex
import sys

from tests.support.postgresql import PostgreSQL

from . import drain, journal, memory, poll, publish, report, serve, wake

PARTS = {
    'a': poll, 'b': wake, 'c': drain, 'd': publish, 'e': memory, 'f': serve,
    'g': journal}


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches',
        description="Compare the stock bus and ours, on a PostgreSQL of its "
        "own.")
    parser.add_argument(
        'parts', nargs='*', metavar='PART',
        help="the parts to run, of %s (default: all)" % ' '.join(PARTS))
    parser.add_argument(
        '--quick', action='store_true',
        help="fewer rounds and sizes: a look, no figures to quote")
    parser.add_argument(
        '--json', metavar='FILE', help="write the figures to this file, too")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error("no such part: %s" % ' '.join(sorted(unknown)))
    for name in list(os.environ):
        if name.startswith('TRYTOND_'):
            del os.environ[name]
    rows = []
    with PostgreSQL(max_connections=100) as postgresql:
        report.print_head()
        for part in options.parts or PARTS:
            module = PARTS[part]
            measured = list(module.run(postgresql, options.quick))
            report.print_part(module.TITLE, measured)
            rows += measured
        if options.json:
            report.write_json(
                options.json, rows, postgresql,
                shlex.join(['python', '-m', 'benches', *sys.argv[1:]]))
    missed = [row for row in rows if row.reached is False]
    if missed:
        print("%d of %d not reached" % (
                len(missed),
                len([row for row in rows if row.reached is not None])))


if __name__ == '__main__':
    main()
