"""Nothing committed is lost under faults, and the checker sees what is."""
import random
import signal
import subprocess
import sys

import pytest
from support.server import environment


@pytest.fixture
def run(tmp_path):
    """run(*arguments): run the command with a new seed, and return its exit
    status and what it has printed, the seed as well"""
    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, '-m', 'faults', '--directory', tmp_path / 'run',
                '--seed', str(random.randrange(10 ** 6)), *arguments],
            env=environment(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        try:
            report, _ = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            # It ends what it has started.
            process.send_signal(signal.SIGINT)
            report, _ = process.communicate()
        return process.returncode, report
    return run


@pytest.mark.parametrize('server', ['trytond', 'trytond-bus'])
@pytest.mark.parametrize('database', ['postgresql', 'sqlite'])
def test_nothing_committed_is_lost(run, database, server):
    status, report = run(
        '--database', database, '--server', server, '--seconds', '8',
        '--deadline', '40')
    assert status == 0, report
    assert 'no violations' in report


@pytest.mark.parametrize('server, sabotage', [
        ('trytond', ['--journal', 'off', '--faults', 'server']),
        ('trytond-bus', ['--journal', 'off', '--faults', 'server']),
        ('trytond', ['--bus-class', 'faults.sabotage.Reversed',
                '--faults', 'none']),
        ('trytond-bus', ['--drop-lock', '--faults', 'none', '--rate', '8']),
        ])
def test_sabotage_is_noticed(run, server, sabotage):
    status, report = run(
        '--server', server, '--seconds', '4', '--deadline', '5', *sabotage)
    assert status == 1, report
    assert ' violations; ' in report, report
