"""No committed message is lost under faults, and the checker finds lost ones.
"""
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.server import environment

SERVERS = ['trytond', 'trytond-bus']


@pytest.fixture
def run(tmp_path):
    """run(*arguments): run the command with a new seed, for both servers at
    the same time, and return the exit statuses and the output"""
    def run_one(server, arguments):
        process = subprocess.Popen(
            [sys.executable, '-m', 'faults', '--server', server,
                '--directory', tmp_path / server,
                '--seed', str(random.randrange(10 ** 6)), *arguments],
            env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        try:
            report, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            # The command ends the programs that it has started.
            process.send_signal(signal.SIGINT)
            report, _ = process.communicate()
        return process.returncode, report

    def run(*arguments, servers=SERVERS):
        with ThreadPoolExecutor() as executor:
            return list(executor.map(
                    lambda server: run_one(server, arguments), servers))
    return run


@pytest.mark.parametrize('database', ['postgresql', 'sqlite'])
def test_nothing_committed_is_lost(run, database):
    for status, report in run(
            '--database', database, '--seconds', '8', '--deadline', '300'):
        assert status == 0, report
        assert 'no violations' in report


@pytest.mark.one_series
@pytest.mark.parametrize('sabotage, servers', [
        # Long enough for a harmful fault. A stopped server does no harm, and
        # is stopped for at most 4 seconds.
        (['--journal', 'off', '--faults', 'server', '--seconds', '12'],
            SERVERS),
        (['--bus-class', 'faults.sabotage.Reversed', '--faults', 'none'],
            ['trytond']),
        (['--bus-class', 'faults.sabotage.Forward', '--faults', 'journal',
                '--seconds', '8'], ['trytond']),
        (['--bus-class', 'faults.sabotage.Credulous', '--faults', 'journal',
                '--seconds', '8'], ['trytond']),
        (['--drop-lock', '--faults', 'none', '--rate', '8'],
            ['trytond-bus']),
        ])
def test_sabotage_is_noticed(run, sabotage, servers):
    for status, report in run(
            '--seconds', '4', '--deadline', '5', *sabotage, servers=servers):
        assert status == 1, report
        assert ' violations; ' in report, report
