"""nginx and systemd accept their examples."""
import shutil
import subprocess

import pytest
from support.nginx import EXAMPLES, Nginx
from support.server import ROOT

pytestmark = pytest.mark.one_series

UNITS = ROOT / 'examples' / 'systemd'


@pytest.mark.parametrize(
    'example', sorted(path.name for path in EXAMPLES.iterdir()))
def test_nginx_takes_the_example(example, nginx):
    process = Nginx(example).check()
    assert process.returncode == 0, process.stderr
    assert '[warn]' not in process.stderr


def test_systemd_takes_the_units(tmp_path):
    if not shutil.which('systemd-analyze'):
        pytest.skip("install systemd")
    for path in UNITS.iterdir():
        command = '/opt/tryton/bin/trytond-bus -c /etc/tryton/trytond.conf'
        unit = path.read_text()
        assert (command in unit) == (path.suffix == '.service')
        (tmp_path / path.name).write_text(unit.replace(command, '/bin/true'))
    units = sorted(tmp_path.iterdir())
    assert [unit.name for unit in units] == [
        'trytond-bus.service', 'trytond-bus.socket',
        'trytond-bus@.service', 'trytond-bus@.socket']

    process = subprocess.run(
        ['systemd-analyze', 'verify', *units], text=True,
        capture_output=True)

    assert process.returncode == 0, process.stderr
    # An unknown option is only warned about.
    assert not process.stderr
