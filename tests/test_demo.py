"""The demonstration, as make demo runs it."""
import re
import subprocess
import sys

import pytest
from support.server import ROOT, environment

pytestmark = pytest.mark.one_series

# Every process of the demonstration sends nothing.
MUTE = '''
import sys
from importlib.util import spec_from_file_location


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == 'trytond_fastbus.publish':
            return spec_from_file_location(name, %r)


sys.meta_path.insert(0, Finder)
'''


def demo(backend='sqlite', **environ):
    return subprocess.run(
        [sys.executable, ROOT / 'examples' / 'demo.py', backend],
        env=environment(**environ), text=True, timeout=600,
        capture_output=True)


@pytest.fixture
def _logins_tell_the_bus(series):
    if float(series) < 7.8:
        pytest.skip("clients learn of the bus server by the login from 7.8 on")


@pytest.mark.usefixtures('_logins_tell_the_bus')
@pytest.mark.parametrize('backend', ['sqlite', 'postgresql'])
def test_demo_prints_message_and_latency(backend):
    process = demo(backend)

    assert process.returncode == 0, process.stderr
    bus = re.search(r'^trytond-bus serves on (\S+)', process.stdout, re.M)
    assert f"at {bus.group(1)}/demo/bus" in process.stdout
    assert "received 'Hello', 'from trytond' on client:" in process.stdout
    latency = re.search(r'^latency ([\d.]+) ms', process.stdout, re.M)
    assert 0 < float(latency.group(1)) < 5000


def test_demo_names_a_database_that_it_does_not_know():
    process = demo('oracle')

    assert process.returncode == 1
    assert "oracle" in process.stderr


@pytest.mark.usefixtures('_logins_tell_the_bus')
def test_demo_fails_when_nothing_arrives(tmp_path):
    publish = tmp_path / 'publish.py'
    publish.write_text("def send(*args): pass")
    (tmp_path / 'sitecustomize.py').write_text(MUTE % str(publish))

    process = demo(PYTHONPATH=str(tmp_path))

    assert process.returncode == 1
    assert "no message arrived" in process.stderr
    assert 'received' not in process.stdout


def test_client_says_how_it_is_called():
    done = subprocess.run(
        [sys.executable, ROOT / 'examples' / 'client.py', 'http://localhost'],
        text=True, timeout=60, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith("usage: client.py URL DATABASE PASSWORD")
