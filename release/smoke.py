"""Install the release on every CPython of this machine, and try it there.

They are those on the PATH, of pyenv where there is one, and those that
PYTHONS names. Each gets an environment of its own, with the newest trytond
that it can have, and runs trial.py. The source distribution is built and
tried on the Python that runs this.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import ROOT, version

COMMAND = re.compile(r'python3\.\d+t?')
ABOUT = '''
import json, os, platform, sys, sysconfig
print(json.dumps([
    os.path.realpath(sys.executable), platform.python_implementation(),
    sys.version_info[:3], bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))
'''
ROW = "{:9} {:35} {:9} {}"


def main(dist):
    found = pythons()
    print(ROW.format('CPython', 'file', 'trytond', 'result'))
    failed = False
    for executable, number in found.items():
        failed |= attempt(executable, number, dist, 'wheel')
    failed |= attempt(
        sys.executable, about(sys.executable)[1], dist, 'source')
    return failed


def pythons():
    "Return the CPython >= 3.10 of this machine and their versions"
    candidates = os.environ.get('PYTHONS', '').split()
    for directory in os.get_exec_path():
        if os.path.isdir(directory):
            candidates += [
                os.path.join(directory, name)
                for name in sorted(os.listdir(directory))
                if COMMAND.fullmatch(name)]
    if shutil.which('pyenv'):
        for name in lines('pyenv', 'versions', '--bare'):
            candidates += [
                os.path.join(prefix, 'bin', 'python')
                for prefix in lines('pyenv', 'prefix', name)]
    found = dict(filter(None, map(about, candidates)))
    return dict(sorted(
            found.items(),
            key=lambda item: [
                int(number) for number in re.findall(r'\d+', item[1])]))


def about(executable):
    "Return the real path of a Python and its version; None if it is no use"
    try:
        said, = lines(executable, '-c', ABOUT)
        path, implementation, number, free_threaded = json.loads(said)
    except (OSError, ValueError):
        # Such as the shim of a version that is not chosen
        return
    if implementation == 'CPython' and number >= [3, 10]:
        return path, '.'.join(map(str, number)) + 't' * free_threaded


def lines(*command):
    return subprocess.run(
        command, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL).stdout.splitlines()


def attempt(executable, number, dist, kind):
    "Install and try a file with a Python, print how it went and if it failed"
    with tempfile.TemporaryDirectory() as directory:
        python = Path(directory, 'environment', 'bin', 'python')
        run(executable, '-m', 'venv', '--without-pip', python.parents[1])
        pip = [sys.executable, '-m', 'pip', '--python', python]
        if kind == 'source':
            file, = dist.glob('*.tar.gz')
            files = [file]
        else:
            # pip takes the wheel that fits
            files = [
                '--no-index', '--find-links', dist, '--only-binary', ':all:',
                f'trytond-fastbus=={version()}']
        # lxml has not said that it does without, and switches it on
        free = number.endswith('t')
        environ = {'PYTHON_GIL': '0'} if free else {}
        for command in [
                [*pip, 'install', '-q', '--no-deps', *files],
                [*pip, 'install', '-q', f'trytond-fastbus=={version()}'],
                # Python warns of fork beside threads from 3.12 on
                [python, '-I', '-W', 'ignore::DeprecationWarning',
                    *(['-X', 'gil=0'] if free else []),
                    ROOT / 'release' / 'trial.py', directory]]:
            process = run(
                *command, **(environ if command[0] is python else {}))
            if process.returncode:
                break
        # The trial is silent on stderr, where it runs as it should
        passed = not process.returncode and not process.stderr
        tag, trytond = process.stdout.split() if passed else ('', '')
        print(ROW.format(
                number, tag if kind == 'wheel' else 'source distribution',
                trytond, 'passed' if passed else 'FAILED'), flush=True)
        if not passed:
            print(executable, process.stdout, process.stderr, sep='\n')
        return not passed


def run(*command, **environ):
    # Compiled crates are taken from there, what is of the file is not
    environ['CARGO_TARGET_DIR'] = str(ROOT / 'target')
    return subprocess.run(
        command, env={**os.environ, **environ}, text=True,
        capture_output=True, timeout=1800)


if __name__ == '__main__':
    sys.exit(main(ROOT / 'dist'))
