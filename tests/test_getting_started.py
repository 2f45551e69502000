"""Runs the commands of docs/getting-started.md as they are written."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import wait_until
from support.client import TrytonClient
from support.postgresql import free_port
from support.server import ROOT, environment

pytestmark = pytest.mark.one_series

BLOCK = re.compile(r'^```(sh|ini)\n(.*?)^```', re.DOTALL | re.MULTILINE)


@pytest.fixture
def page(postgresql, database, tmp_path):
    "The page, with a database and ports of this test"
    class Page:
        ports = {'8000': free_port(), '8001': free_port()}
        config = tmp_path / 'trytond.conf'
        directory = tmp_path

        def __init__(self):
            text = (ROOT / 'docs' / 'getting-started.md').read_text()
            for port, own in self.ports.items():
                text = text.replace(f'localhost:{port}', f'localhost:{own}')
            text = text.replace('-d tryton', f'-d {database}')
            self.blocks = BLOCK.findall(text)
            assert len(self.blocks) == len(re.findall('^```[a-z]', text, re.M))
            self.config.write_text(
                f"[database]\nuri = {postgresql.uri}\n"
                f"[web]\nlisten = localhost:{self.ports['8000']}\n")

        @property
        def environment(self):
            path = [str(Path(sys.executable).parent), os.environ['PATH']]
            return environment(
                PATH=os.pathsep.join(path),
                TRYTOND_BUS__LISTEN=f"localhost:{self.ports['8001']}")

        def run(self, commands):
            process = subprocess.run(
                ['bash', '-e', '-c', commands], cwd=self.directory,
                env=self.environment, text=True, timeout=60,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            assert process.returncode == 0, process.stdout
            return process.stdout

        @contextmanager
        def running(self, command):
            "Run the command in the background, and wait until it is ready"
            log = self.directory / f'{len(os.listdir(self.directory))}.log'
            with open(log, 'wb') as output:
                process = subprocess.Popen(
                    ['bash', '-c', 'exec ' + command.splitlines()[-1]],
                    cwd=self.directory, env=self.environment,
                    stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT)
            try:
                if ' tail ' not in command:
                    port = self.ports[
                        '8001' if 'trytond-bus' in command else '8000']
                    wait_until(lambda: is_open(port, process), 60)
                yield
                assert process.poll() is None, log.read_text()
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)

    return Page()


def is_open(port, process):
    if process.poll() is not None:
        raise RuntimeError(f"ended with the status {process.returncode}")
    try:
        socket.create_connection(('localhost', port), 1).close()
    except OSError:
        return False
    return True


def test_page_leads_to_a_popup(page, database):
    if not shutil.which('bash'):
        pytest.skip("install bash")
    popups = []
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor())
        for language, block in page.blocks:
            if language == 'ini':
                page.config.write_text(page.config.read_text() + block)
            elif block.startswith('# keeps running\n'):
                stack.enter_context(page.running(block))
            elif ' notify ' in block:
                client = TrytonClient(
                    f"http://localhost:{page.ports['8000']}", database,
                    timeout=30)
                poll = executor.submit(client.poll)
                page.run(block)
                popups.append(poll.result())
            else:
                page.run(block)

    (channel, message), = popups
    assert channel == f'client:{client.id}' or channel.startswith('user:')
    assert (message['title'], message['body']) == ("Hello", "from the bus")
