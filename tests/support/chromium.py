"""A headless Chromium, driven through a pipe by the DevTools protocol. It
needs only the browser."""
import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

from . import wait_until

# The browser reads commands from descriptor 3 and writes to 4.
LAUNCHER = """
import fcntl, os, sys
# Out of each other's way first
read, write = [
    fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
os.dup2(read, 3)
os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_chromium():
    "Return the path of the browser, or None"
    for name in ['chromium', 'chromium-browser', 'google-chrome']:
        if path := shutil.which(name):
            return path


class Chromium:
    "The browser with a profile of its own, as a context manager"

    def __init__(self, *options):
        self._options = [
            '--headless=new', '--remote-debugging-pipe', '--no-first-run',
            '--disable-gpu', '--disable-dev-shm-usage',
            '--disable-background-networking', '--disable-component-update',
            '--window-size=1280,800', *options]
        if os.geteuid() == 0:
            self._options.append('--no-sandbox')  # otherwise root is refused

    def __enter__(self):
        self._ids = itertools.count(1)
        self._buffer = b''
        self._profile = tempfile.mkdtemp(prefix='chromium-')
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        with open(os.path.join(self._profile, 'log'), 'wb') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-c', LAUNCHER, str(read), str(write),
                    find_chromium(), *self._options,
                    f'--user-data-dir={self._profile}'],
                pass_fds=[read, write], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
        os.close(read)
        os.close(write)
        return self

    def __exit__(self, *_):
        try:
            self.send('Browser.close', deadline=10)
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method, session=None, deadline=60, **params):
        "Send the command, and return its result"
        id_ = next(self._ids)
        command = {'id': id_, 'method': method, 'params': params}
        if session:
            command['sessionId'] = session
        data = json.dumps(command).encode() + b'\0'
        while data:
            data = data[os.write(self._write, data):]
        end = time.monotonic() + deadline
        # Other messages are events.
        while (answer := self._receive(end)).get('id') != id_:
            pass
        if 'error' in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer['result']

    def _receive(self, end):
        while b'\0' not in self._buffer:
            ready, _, _ = select.select(
                [self._read], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            if not (data := os.read(self._read, 1 << 20)):
                raise BrokenPipeError("the browser has ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        return json.loads(message)

    def open(self, url, script=''):
        "Open a tab that runs the script before those of the page"
        target = self.send('Target.createTarget', url='about:blank')
        session = self.send(
            'Target.attachToTarget', targetId=target['targetId'],
            flatten=True)
        page = Page(self, session['sessionId'])
        page.send('Page.enable')
        page.send('Page.addScriptToEvaluateOnNewDocument', source=script)
        page.send('Page.navigate', url=url)
        return page


class Page:
    "A tab"

    def __init__(self, browser, session):
        self._browser = browser
        self._session = session

    def send(self, method, **params):
        return self._browser.send(method, self._session, **params)

    def evaluate(self, expression):
        "Return the value of the JavaScript"
        answer = self.send(
            'Runtime.evaluate', expression=expression, returnByValue=True,
            awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer['result'].get('value')

    def wait(self, expression, deadline=60):
        "Return the first true value of the JavaScript"
        def value():
            # A document that is only being made has nothing yet
            return self.evaluate(f'(() => {{ try {{ return {expression} }} '
                'catch (error) { return null } })()')
        return wait_until(value, deadline, f"not {expression}")

    def type(self, selector, text):
        "Type into the field when it is visible"
        field = f'document.querySelector({json.dumps(selector)})'

        def typed():
            # The page may move the focus in between
            self.wait(
                f'{field}.offsetParent && !{field}.disabled && '
                f'({field}.focus(), {field}.select(), true)')
            self.send('Input.insertText', text=text)
            return self.evaluate(f'{field}.value') == text
        wait_until(typed, message=f"cannot type into {selector}")

    def click(self, selector):
        "Click on the element when it is visible"
        element = f'document.querySelector({json.dumps(selector)})'
        self.wait(f'{element}.offsetParent && ({element}.click(), true)')

    def screenshot(self, path):
        data = self.send('Page.captureScreenshot', format='png')['data']
        path.write_bytes(base64.b64decode(data))
