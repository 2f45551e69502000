"""Nothing committed is lost under faults, and the checker sees what is."""
import random
import subprocess
import sys

import pytest
from support.server import environment


def run(*arguments):
    "Run the command, and return its exit status and what it has printed"
    seed = random.randrange(10 ** 6)
    process = subprocess.run(
        [sys.executable, '-m', 'faults', '--seed', str(seed), *arguments],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True)
    return process.returncode, process.stdout


@pytest.mark.parametrize('server', ['trytond', 'trytond-bus'])
@pytest.mark.parametrize('database', ['postgresql', 'sqlite'])
def test_nothing_committed_is_lost(database, server):
    status, report = run(
        '--database', database, '--server', server, '--seconds', '8')
    assert status == 0, report
    assert 'no violations' in report


def test_run_without_the_journal_fails():
    status, report = run(
        '--server', 'trytond', '--seconds', '6', '--journal', 'off')
    assert status == 1, report
    assert 'did not receive the message' in report


def test_run_with_batches_reversed_fails():
    status, report = run(
        '--server', 'trytond', '--seconds', '4', '--faults', 'off',
        '--bus-class', 'faults.sabotage.Reversed')
    assert status == 1, report
    assert 'published later in the transaction' in report


def test_run_without_the_lock_fails():
    status, report = run(
        '--server', 'trytond-bus', '--seconds', '4', '--faults', 'off',
        '--drop-lock')
    assert status == 1, report
    assert ' violations' in report
