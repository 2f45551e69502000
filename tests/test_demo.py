"""The demonstration, as make demo runs it."""
import re
import subprocess
import sys

from support.server import ROOT, environment

DEAF = '''
class Bus:
    @classmethod
    def publish(cls, channel, message):
        pass

    @classmethod
    def subscribe(cls, database, channels, last_message=None):
        return {'message': None, 'channel': None}
'''


def demo(**environ):
    return subprocess.run(
        [sys.executable, ROOT / 'examples' / 'demo.py'],
        env=environment(**environ), text=True, timeout=120,
        capture_output=True)


def test_demo_prints_message_and_latency():
    process = demo()

    assert process.returncode == 0, process.stderr
    assert "received 'Hello', 'from trytond' on client:" in process.stdout
    latency = re.search(r'^latency ([\d.]+) ms', process.stdout, re.M)
    assert 0 < float(latency.group(1)) < 5000


def test_demo_fails_when_nothing_arrives(tmp_path):
    (tmp_path / 'trytond_fastbus.py').write_text(DEAF)

    process = demo(PYTHONPATH=str(tmp_path))

    assert process.returncode == 1
    assert "no message arrived" in process.stderr
    assert 'received' not in process.stdout
