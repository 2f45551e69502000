"""Run trytond's own tests of the bus, unchanged, on ours and on stock.

    python tests/compat/upstream.py [--stock] [--environments DIR] SERIES ...

Each series runs in its environment, each backend and each bus in its own
process. Ours must run the same tests as stock and skip the same tests, without
a failure. With --stock only stock is run.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.postgresql import PostgreSQL  # noqa: E402

BACKENDS = ['postgresql', 'sqlite']
# They mostly wait.
JOBS = 4


def run(bus):
    "Run the tests in this process and print their outcome as JSON"
    if bus == 'ours':
        import trytond_fastbus
        trytond_fastbus.install()
    from trytond.tests import test_bus

    if bus == 'ours':
        assert test_bus.Bus is trytond_fastbus.Bus, test_bus.Bus
        assert test_bus._MessageQueue.__module__.startswith(
            'trytond_fastbus'), test_bus._MessageQueue
    else:
        assert test_bus.Bus.__module__ == 'trytond.bus', test_bus.Bus

    class Result(unittest.TextTestResult):
        tests = []

        def startTest(self, test):
            super().startTest(test)
            self.tests.append(test.id())

    result = unittest.TextTestRunner(
        sys.stderr, resultclass=Result, verbosity=2).run(
        unittest.defaultTestLoader.loadTestsFromModule(test_bus))
    skipped = [test.id() for test, _ in result.skipped]
    print(json.dumps({
                # Some versions of Python do not start a test that they skip.
                'run': sorted({*result.tests, *skipped}),
                'skipped': sorted(skipped),
                'success': result.wasSuccessful(),
                }))


def outcome(python, bus, backend, server):
    "Return the output of run in a process of this environment, and its log"
    series = python.parents[1].name
    database = (
        f'test_{bus}_{series}' if backend == 'postgresql' else ':memory:')
    environ = {
        name: value for name, value in os.environ.items()
        if not name.startswith('TRYTOND_')}
    environ.update(
        TRYTOND_DATABASE_URI=(
            server.uri if backend == 'postgresql' else 'sqlite://'),
        DB_NAME=database,
        DB_CACHE=str(python.parents[1] / 'cache' / server.build),
        PATH=f'{server.binaries}{os.pathsep}{environ["PATH"]}')
    server.drop_database(database)
    process = subprocess.run(
        [python, __file__, '--run', bus], env=environ, text=True,
        timeout=300, capture_output=True)
    try:
        result = json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        result = {'run': [], 'skipped': [], 'success': False}
    return result, process.stderr


def compare(series, backend, environments, server, buses):
    """Run one series on one backend, print its line, and return whether it
    passed"""
    python = Path(environments).resolve() / series / 'bin' / 'python'
    results = {
        bus: outcome(python, bus, backend, server) for bus in buses}
    stock, _ = results['stock']
    right = bool(stock['run'])
    line = f'{series:8}{backend:12}'
    for bus in buses:
        result, _ = results[bus]
        right &= (
            result['success']
            and result['run'] == stock['run']
            and result['skipped'] == stock['skipped'])
        line += f'{len(result["run"]):8}{len(result["skipped"]):9}'
    print(line + ('' if right else '  FAILED'), flush=True)
    if not right:
        for bus, (result, log) in results.items():
            print(f'--- {series} {backend} {bus}: {result}\n{log}')
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('series', nargs='*', metavar='SERIES')
    parser.add_argument('--environments', default='.environments')
    parser.add_argument('--stock', action='store_true')
    parser.add_argument('--run', choices=['stock', 'ours'])
    options = parser.parse_args()
    if options.run:
        return run(options.run)
    buses = ['stock'] if options.stock else ['stock', 'ours']
    print('series  backend     ', *(
            f'{bus:>8}  skipped' for bus in buses), sep='')
    with PostgreSQL() as server, ThreadPoolExecutor(JOBS) as executor:
        rights = [*executor.map(
                lambda pair: compare(
                    *pair, options.environments, server, buses),
                itertools.product(options.series, BACKENDS))]
    failed = rights.count(False)
    print(f'{len(rights) - failed} passed, {failed} failed')
    return int(bool(failed) or not rights)


if __name__ == '__main__':
    sys.exit(main())
