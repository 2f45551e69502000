"""Runs a part of `make test`, and sums up all parts.

    python tests/part.py run NAME COMMAND ...
    python tests/part.py report NAME ...

A part is a command. Its output is shown if it fails, and always kept in
target/parts. Its tests are counted from target/parts/NAME.xml, in the format
of JUnit, or from the lines of results that it prints. A command without either
is one test.
"""
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

PARTS = Path(__file__).parents[1] / 'target' / 'parts'
CARGO = re.compile(
    r'^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored', re.M)
# trytond's own tests, by series and backend
UPSTREAM = re.compile(r'^(\d+) passed, (\d+) failed$', re.M)
COUNTS = ['passed', 'failed', 'skipped']
# The reason of a test that needs a program
INSTALL = 'install '


def run(name, *command):
    "Run the part and return its exit status"
    PARTS.mkdir(parents=True, exist_ok=True)
    log, xml, result = (
        PARTS / f'{name}.{suffix}' for suffix in ['log', 'xml', 'json'])
    for path in [xml, result]:
        path.unlink(missing_ok=True)
    print(f"{name}: started", flush=True)
    started = time.monotonic()
    with open(log, 'wb') as file:
        status = subprocess.run(command, stdout=file, stderr=file).returncode
    seconds = time.monotonic() - started
    counts, reasons = count(log.read_text(errors='replace'), xml, status)
    result.write_text(json.dumps({
                'seconds': seconds, 'counts': counts, 'reasons': reasons}))
    if status:
        print(f"--- {name}\n{log.read_text(errors='replace')}---")
    print(f"{name}: {clock(seconds)}, {said(counts)}", flush=True)
    return status


def count(log, xml, status):
    "Return how many tests passed, failed and were skipped, and why"
    counts, reasons = Counter(dict.fromkeys(COUNTS, 0)), Counter()
    if xml.exists():
        for case in ElementTree.parse(xml).iter('testcase'):
            outcomes = {child.tag: child for child in case}
            if outcomes.keys() & {'failure', 'error'}:
                counts['failed'] += 1
            elif 'skipped' in outcomes:
                counts['skipped'] += 1
                reasons[outcomes['skipped'].get('message')] += 1
            else:
                counts['passed'] += 1
    elif found := CARGO.findall(log) or UPSTREAM.findall(log):
        for numbers in found:
            counts.update(dict(zip(COUNTS, map(int, numbers), strict=False)))
    elif not status:
        counts['passed'] = 1
    if status and not counts['failed']:
        counts['failed'] = 1
    return counts, reasons


def report(*names):
    "Print how the parts ended, and return 1 unless all have passed"
    total, reasons = Counter(dict.fromkeys(COUNTS, 0)), Counter()
    width = max(map(len, names))
    print()
    for name in names:
        try:
            result = json.loads((PARTS / f'{name}.json').read_text())
        except FileNotFoundError:
            total['failed'] += 1
            print(f"{name:{width}}      -  did not run")
            continue
        total.update(result['counts'])
        reasons.update(result['reasons'])
        print(f"{name:{width}}  {clock(result['seconds']):>5}"
            f"  {said(result['counts'])}")
    missing = {reason for reason in reasons if INSTALL in reason}
    for title, some in [
            ("To run the tests that need a missing program:", missing),
            ("Skipped since it does not apply:", reasons.keys() - missing)]:
        if some:
            print(f"\n{title}")
            for reason in sorted(some):
                print(f"  {reason} ({reasons[reason]})")
    print("\n" + ', '.join(f"{total[key]} {key}" for key in COUNTS))
    return int(total['failed'] > 0 or not total['passed'])


def clock(seconds):
    return '%d:%02d' % divmod(round(seconds), 60)


def said(counts):
    "The counts as text, without zeros"
    return ', '.join(
        f"{counts[key]} {key}" for key in COUNTS if counts[key])


if __name__ == '__main__':
    action = {'run': run, 'report': report}[sys.argv[1]]
    sys.exit(action(*sys.argv[2:]))
