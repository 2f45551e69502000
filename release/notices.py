"""The licences of the crates that are linked into the wheel, whose texts are
in it."""
import json
import shutil
from pathlib import Path

from . import PLATFORMS, ROOT, crates, output

HEAD = """\
The native module of trytond-fastbus contains these crates, each under the
text that follows the names. The Rust standard library, which it contains too,
has THIRD-PARTY-RUST.html.
"""
RULE = '-' * 78
FILES = 'licen', 'copying', 'copyright', 'notice'
# Where a crate may be had under the MIT licence it is taken under that one
UNUSED = 'apache', 'unlicense'


def write(directory):
    """Write the texts into the directory.

    Raises FileNotFoundError where a crate, or the Rust that compiles them,
    comes without.
    """
    texts = {}
    for name, path in sorted(linked().items()):
        for text in licences(name, path):
            texts.setdefault(' '.join(text.split()), (text, []))[1].append(
                name)
    parts = [
        '\n'.join([RULE, ', '.join(sorted(set(names))), RULE, '', text])
        for text, names in texts.values()]
    (directory / 'THIRD-PARTY.txt').write_text('\n'.join([HEAD, *parts]))
    shutil.copyfile(
        Path(output('rustc', '--print', 'sysroot'), 'share', 'doc', 'rust',
            'COPYRIGHT-library.html'),
        directory / 'THIRD-PARTY-RUST.html')


def linked():
    "Return where the source of each crate is that is in any of the wheels"
    wanted = {crate for target in PLATFORMS for crate in crates(target)}
    metadata = json.loads(output(
            'cargo', 'metadata', '--quiet', '--locked',
            '--format-version', '1',
            cwd=ROOT))
    return {
        f"{package['name']} {package['version']}":
        Path(package['manifest_path']).parent
        for package in metadata['packages']
        if (package['name'], package['version']) in wanted}


def licences(name, path):
    "Return the texts that a crate is to be passed on with"
    files = [
        file for file in sorted(path.iterdir())
        if file.is_file() and file.name.lower().startswith(FILES)]
    chosen = [
        file for file in files
        if not any(word in file.name.lower() for word in UNUSED)]
    if not files:
        raise FileNotFoundError(f"{name} has no text of its licence")
    return [file.read_text().strip() + '\n' for file in chosen or files]
