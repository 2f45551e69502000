"""The command that measures both sides and prints a table."""
import argparse
import os

from tests.support.postgresql import PostgreSQL

from . import drain, journal, many, memory, poll, publish, serve, wake
from .record import RESULTS, Run, add_options, parse
from .report import print_head, print_part

PARTS = {
    'a': poll, 'b': wake, 'c': drain, 'd': publish, 'e': memory, 'f': serve,
    'g': journal, 'h': many}


def main():
    parser = argparse.ArgumentParser(
        prog='python -m benches',
        description="Compare the stock bus and ours, on a PostgreSQL of its "
        "own.")
    parser.add_argument(
        'parts', nargs='*', metavar='PART',
        help="the parts to run, of %s (default: all)" % ' '.join(PARTS))
    add_options(parser)
    options = parse(parser)
    if unknown := set(options.parts) - set(PARTS):
        parser.error("no such part: %s" % ' '.join(sorted(unknown)))
    for name in list(os.environ):
        if name.startswith('TRYTOND_'):
            del os.environ[name]
    rows = []
    with PostgreSQL(max_connections=100) as postgresql:
        run = Run('benches', postgresql)
        print_head(run)
        for part in options.parts or PARTS:
            module = PARTS[part]
            measured = list(module.run(postgresql, options.quick))
            print_part(module.TITLE, measured)
            rows += measured
            if options.record:
                # Each part has its own file, so that it can be measured again
                # alone.
                name = module.__name__.rpartition('.')[2]
                run.write(
                    RESULTS / f'{name}.json',
                    [row.asdict() for row in measured])
        if options.json:
            run.write(options.json, [row.asdict() for row in rows])
    missed = [row for row in rows if row.reached is False]
    if missed:
        print("%d of %d not reached" % (
                len(missed),
                len([row for row in rows if row.reached is not None])))


if __name__ == '__main__':
    main()
