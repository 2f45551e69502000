"""The programs in Rust that the benchmarks run, of benches/load."""
import subprocess
import sys
from pathlib import Path

LOAD = Path(__file__).parent / 'load'


def build():
    "Build them, and return the directory where they are"
    subprocess.run(
        ['cargo', 'build', '-q', '--release', '--locked'], cwd=LOAD,
        check=True, stdout=sys.stderr)
    return LOAD / 'target' / 'release'
