"""The report of make test about its parts."""
import json
import sys

import part
import pytest

pytestmark = pytest.mark.one_series

JUNIT = '''<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><failure message="no"/></testcase>
<testcase name="c"><skipped message="install nginx"/></testcase>
<testcase name="d"><skipped message="install nginx"/></testcase>
<testcase name="e"><skipped message="not in this series"/></testcase>
</testsuite></testsuites>'''


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    monkeypatch.setattr(part, 'PARTS', tmp_path)
    return tmp_path


def script(text):
    return [sys.executable, '-c', text]


@pytest.mark.parametrize('text, status, counts', [
        ("", 0, (1, 0, 0)),
        ("raise SystemExit(3)", 3, (0, 1, 0)),
        ("print('test result: ok. 5 passed; 0 failed; 2 ignored; 0 m')\n" * 2,
            0, (10, 0, 4)),
        ("print('test result: FAILED. 5 passed; 1 failed; 0 ignored')\n"
            "raise SystemExit(101)", 101, (5, 1, 0)),
        # The part ended before it had a result.
        ("print('test result: ok. 5 passed; 0 failed; 2 ignored')\n"
            "raise SystemExit(1)", 1, (5, 1, 2)),
        ("print('3 passed, 1 failed')\nraise SystemExit(1)", 1, (3, 1, 0)),
        ])
def test_part_is_counted(text, status, counts, parts, capsys):
    assert part.run('rust', *script(text)) == status

    result = json.loads((parts / 'rust.json').read_text())
    assert tuple(result['counts'].values()) == counts
    started, *shown, ended = capsys.readouterr().out.splitlines()
    assert started == "rust: started"
    assert ended.startswith("rust: 0:0")
    assert bool(shown) == bool(status)


def test_report_sums_up_and_names_missing_programs(parts, capsys):
    write = f"open({str(parts / 'python.xml')!r}, 'w').write('''{JUNIT}''')"
    part.run('lint', *script(""))
    part.run('python', *script(write))
    capsys.readouterr()

    assert part.report('lint', 'python') == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 passed, 1 failed, 3 skipped"
    assert "  install nginx (2)" in lines
    assert lines.index("  install nginx (2)") < lines.index(
        "  not in this series (1)")


def test_part_that_did_not_run_has_failed(capsys):
    part.run('lint', *script(""))

    assert part.report('lint') == 0
    assert part.report('lint', 'wheel') == 1

    *_, line = capsys.readouterr().out.splitlines()
    assert line == "1 passed, 1 failed, 0 skipped"
