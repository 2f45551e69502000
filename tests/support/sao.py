"""The web client, sao, as npm has it."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HOOK = """
window.shown = [];
window.Notification = class extends Notification {
    constructor(title, options) {
        super(title, options);
        this.addEventListener(
            'show', () => shown.push([this.title, this.body]));
    }
};
"""


class Missing(Exception):
    "No sao of the series can be downloaded"


def npm(*args, cwd):
    process = subprocess.run(
        ['npm', *args, '--no-audit', '--no-fund', '--no-update-notifier'],
        cwd=cwd, text=True, capture_output=True)
    if process.returncode:
        errors = re.findall('^npm (?:error|ERR!) (.+)', process.stderr, re.M)
        raise Missing(f"npm: {' '.join(errors[:2]) or process.stderr}")
    return process.stdout.strip()


def fetch(series):
    "Return the directory with sao of this series, from npm the first time"
    cache = Path(sys.prefix) / 'cache'
    cache.mkdir(exist_ok=True)
    path = cache / f'sao-{series}'
    if not path.exists():
        if not shutil.which('npm'):
            raise Missing("install npm")
        with tempfile.TemporaryDirectory(dir=cache) as directory:
            output = npm('pack', f'tryton-sao@{series}', cwd=directory)
            archive = output.splitlines()[-1]
            shutil.unpack_archive(Path(directory) / archive, directory)
            package = Path(directory) / 'package'
            keep_dependencies(package)
            # As its README says, without the scripts that packages may want to
            # run
            npm('install', '--legacy-peer-deps', '--ignore-scripts',
                '--no-package-lock', cwd=package)
            os.replace(package, path)
    return path


def keep_dependencies(package):
    "Leave out what only builds and tests what the package has built"
    loaded = re.findall(
        r'"node_modules/([^/]+)/', (package / 'index.html').read_text())
    description = json.loads((package / 'package.json').read_text())
    description.pop('devDependencies', None)
    description['dependencies'] = {
        name: version
        for name, version in description['dependencies'].items()
        if name in loaded}
    (package / 'package.json').write_text(json.dumps(description))


def make_root(sao, path, *files):
    "Make a directory to serve, of sao and these files beside it"
    path.mkdir()
    for file in [*sao.iterdir(), *files]:
        (path / file.name).symlink_to(file)
    return path


def log_in(browser, url, database, login='admin', password='admin'):
    "Return the page of a user that has logged in"
    browser.send(
        'Browser.grantPermissions', permissions=['notifications'], origin=url)
    page = browser.open(f'{url}/#{database}', HOOK)
    # It asks the server for the databases first.
    page.wait(
        "[...document.querySelectorAll('.login-dialog [name=database]')]"
        ".some(field => field.offsetParent && field.value)")
    page.type('.login-dialog #login', login)
    page.click('.login-dialog [type=submit]')
    page.type('.ask-dialog input', password)
    page.click('.ask-dialog .btn-primary')
    page.wait("jQuery('#user-preferences').children().length")
    return page
