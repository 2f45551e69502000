"""The demonstration, as make demo runs it."""
import re
import subprocess
import sys

from support.server import ROOT, environment


def demo(**environ):
    return subprocess.run(
        [sys.executable, ROOT / 'examples' / 'demo.py'],
        env=environment(**environ), text=True, timeout=120,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_demo_prints_message_and_latency():
    process = demo()

    assert process.returncode == 0, process.stderr
    assert "received 'Hello', 'from trytond' on client:" in process.stdout
    latency = re.search(r'^latency ([\d.]+) ms', process.stdout, re.M)
    assert 0 < float(latency.group(1)) < 5000


def test_demo_fails_when_nothing_arrives():
    process = demo(TRYTOND_BUS__CLASS='trytond.bus.LongPollingBus')

    assert process.returncode == 1
    assert 'received' not in process.stdout
