"""Checks the licences, sources and known vulnerabilities of dependencies.

cargo-deny checks crates, by the rules of deny.toml. pip-audit checks trytond
and its dependencies. If a list of vulnerabilities cannot be reached, a line
says so, and the check does not fail.
"""
import json
import subprocess
import sys
from pathlib import Path

from . import ROOT

CARGO_DENY = ROOT / '.environments' / 'cargo' / 'bin' / 'cargo-deny'
# What the product requires, and nothing else
REQUIREMENTS = ROOT / 'tests' / 'requirements' / 'demo.txt'


def main():
    checks = ['licenses', 'bans', 'sources']
    if run(CARGO_DENY, 'fetch', 'db').returncode:
        print("crates: not checked for known faults, no database reached")
    else:
        checks.append('advisories')
    process = subprocess.run(
        [CARGO_DENY, '--locked', 'check', *checks], cwd=ROOT)
    return bool(process.returncode) | packages()


def packages():
    "Look for known faults of the packages in Python, return if there are"
    process = run(
        Path(sys.executable).parent / 'pip-audit', '-r', REQUIREMENTS,
        '--progress-spinner', 'off', '--format', 'json')
    try:
        found = json.loads(process.stdout)['dependencies']
    except ValueError:
        print("packages: not checked for known faults:", process.stderr)
        return True
    faulty = False
    for package in found:
        for fault in package.get('vulns', []):
            faulty = True
            print("{name} {version}: {id}, mended in {fixed}".format(
                    **package, id=fault['id'],
                    fixed=', '.join(fault['fix_versions']) or "no version"))
    skipped = [
        package['name'] for package in found if 'skip_reason' in package]
    print(f"packages: {len(found)}, not in a reached database:",
        ', '.join(skipped) or "none")
    return faulty


def run(*command):
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


if __name__ == '__main__':
    sys.exit(main())
