"""Make the files of a release, check them and try them: make dist."""
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The wheels, by target of rustc
PLATFORMS = {
    'x86_64-unknown-linux-gnu': 'manylinux_2_17_x86_64',
    'aarch64-unknown-linux-gnu': 'manylinux_2_17_aarch64',
    'x86_64-unknown-linux-musl': 'musllinux_1_2_x86_64',
    'aarch64-unknown-linux-musl': 'musllinux_1_2_aarch64',
    }


def output(*command, **options):
    "Return what a command prints; raise CalledProcessError if it fails"
    return subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE,
        **options).stdout.strip()


def version():
    "Return the version that Cargo.toml has, the only place that says it"
    identifier = output('cargo', 'pkgid', '--offline', cwd=ROOT)
    return identifier.rpartition('#')[2].rpartition('@')[2]


@functools.cache
def crates(target):
    "Return name and version of each crate that is linked into the wheel"
    lines = output(
        'cargo', 'tree', '--quiet', '--locked', '--target', target,
        '--edges', 'normal,no-proc-macro', '--prefix', 'none',
        '--format', '{p}', cwd=ROOT)
    found = {tuple(line.split()[:2]) for line in lines.splitlines()}
    return sorted(
        (name, version.removeprefix('v')) for name, version in found
        if name != 'trytond-fastbus')
