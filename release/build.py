"""Builds the source distribution, and the wheels from its files.

The texts of the licences are added to them. If REPOSITORY is the address of
the project's repository, the links of the README and the project's URLs point
there. Wheels that this machine cannot build are named and omitted.
"""
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from . import PLATFORMS, ROOT, notices, output, version

# One for the stable ABI from there on, and one that is free-threaded, which
# has none; they need not be there.
INTERPRETERS = ['python3.10', 'python3.14t']
LINK = re.compile(r'(!?)(\[[^]]*\]\()(?![a-z]+:)([^)]*\))')


def main(dist):
    shutil.rmtree(dist, ignore_errors=True)
    with tempfile.TemporaryDirectory() as directory:
        source = unpack(directory)
        notices.write(source)
        readme = source / 'README.md'
        if repository := os.environ.get('REPOSITORY'):
            repository = repository.rstrip('/')
            readme.write_text(
                absolute(readme.read_text(), repository, version()))
            with open(source / 'pyproject.toml', 'a') as file:
                file.write(urls(repository, version()))
        else:
            print(
                "README: links as they are, and no project URLs, without "
                "REPOSITORY=https://…")
        maturin('sdist', '--out', dist, cwd=source)
        for target in PLATFORMS:
            build(target, dist, source)


def unpack(directory):
    "Unpack what the source distribution has into a directory"
    maturin('sdist', '--out', directory, cwd=ROOT)
    archive, = Path(directory).glob('*.tar.gz')
    with tarfile.open(archive) as tar:
        tar.extractall(directory)
    source = Path(directory, archive.name.removesuffix('.tar.gz'))
    # maturin makes it anew
    source.joinpath('PKG-INFO').unlink()
    return source


def absolute(text, repository, version):
    "Have links and images lead from anywhere to the files of the version"
    def replace(match):
        image, start, path = match.groups()
        if path.startswith('#'):
            path = 'README.md' + path
        kind = 'raw' if image else 'blob'
        return f"{image}{start}{repository}/{kind}/v{version}/{path}"
    return LINK.sub(replace, text)


def urls(repository, version):
    "Return the section of pyproject.toml that leads to the project's pages"
    return '''
[project.urls]
Repository = "%(repository)s"
Documentation = "%(repository)s/blob/v%(version)s/docs/index.md"
Changelog = "%(repository)s/blob/v%(version)s/CHANGELOG.md"
Issues = "%(repository)s/issues"
''' % {'repository': repository, 'version': version}


def build(target, dist, source):
    "Build the wheels of a target"
    library = output('rustc', '--print', 'target-libdir', '--target', target)
    if not Path(library).is_dir():
        print(f"{target}: not built, rustup target add {target} is needed")
        return
    print(target, *INTERPRETERS, flush=True)
    maturin(
        'build', '--release', '--locked', '--zig', '--out', dist,
        '--auditwheel', 'check', '--target', target,
        '--interpreter', *INTERPRETERS, cwd=source)


def maturin(*command, cwd):
    "Run maturin, with zig on its path and no path of this machine in binaries"
    environ = {
        **os.environ,
        'PATH': os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ['PATH']]),
        'CARGO_TARGET_DIR': str(ROOT / 'target' / 'dist'),
        'RUSTFLAGS': f'--remap-path-prefix={registry()}=crates',
        }
    # Of the interpreter for which the tests are built
    environ.pop('PYO3_PYTHON', None)
    process = subprocess.run(
        [Path(sys.executable).parent / 'maturin', *command], cwd=cwd,
        env=environ, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    if process.returncode:
        print(process.stdout)
        raise SystemExit(f"maturin {command[0]} failed")


def registry():
    "Return where cargo keeps the sources of crates"
    home = os.environ.get('CARGO_HOME') or Path.home() / '.cargo'
    return Path(home, 'registry', 'src')


if __name__ == '__main__':
    main(ROOT / 'dist')
