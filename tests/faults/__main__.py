"""The command python -m faults, with tests/ on PYTHONPATH."""
import argparse
import random
import sys

from .run import run


def main():
    parser = argparse.ArgumentParser('faults', description=__doc__)
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=random.randrange(10 ** 6))
    parser.add_argument(
        '--database', choices=['postgresql', 'sqlite'], default='postgresql')
    parser.add_argument(
        '--server', choices=['trytond', 'trytond-bus', 'both'],
        default='both')
    parser.add_argument('--journal', choices=['on', 'off'], default='on')
    parser.add_argument(
        '--faults', nargs='+', help="of what only", choices=[
            'server', 'publisher', 'PostgreSQL', 'connections',
            'journal', 'none'])
    parser.add_argument(
        '--cache-timeout', type=int, choices=[2, 300],
        help="[bus] cache_timeout: with 2 clients fall behind it, with 300 "
        "some start later; by default one of them is drawn")
    parser.add_argument('--cache-size', type=int, help="[bus] cache_size")
    parser.add_argument('--clients', type=int, default=6)
    parser.add_argument(
        '--rate', type=float, default=3,
        help="transactions a second of each of the four publishers")
    parser.add_argument(
        '--pause', type=float, default=1,
        help="seconds before a fault at the most; two may happen at a time")
    parser.add_argument(
        '--churn', type=float, default=0,
        help="clients a second that come and go, most of them badly")
    parser.add_argument(
        '--rounds', type=int, default=0,
        help="rest so many times, and see that a server of each kind, one "
        "more that is never killed, has given back all it took")
    parser.add_argument(
        '--rest', type=float, default=45,
        help="seconds of a rest; sessions are remembered for 30 s and more")
    parser.add_argument(
        '--deadline', type=float, default=60,
        help="seconds after the end in which all has to be delivered")
    parser.add_argument(
        '--directory',
        help="a new one for the logs, which are kept then in any case")
    parser.add_argument(
        '--bus-class', default='trytond_fastbus.Bus',
        help="[bus] class of trytond and of the publishers")
    parser.add_argument(
        '--drop-lock', action='store_true',
        help="have the journal number messages without its lock")
    options = parser.parse_args()
    if not options.cache_timeout:
        options.cache_timeout = random.Random(
            f'{options.seed} cache').choice([2, 300])
    sys.exit(bool(run(options)))


if __name__ == '__main__':
    main()
