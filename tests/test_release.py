"""The checks of a release refuse what must not be published."""
import io
import json
import subprocess
import tarfile
import zipfile

import pytest

from release import ROOT, build, check, crates, notices, version
from release.audit import CARGO_DENY

pytestmark = pytest.mark.one_series

TARGET = 'x86_64-unknown-linux-gnu'
TAG = 'cp310-abi3-manylinux_2_17_x86_64'
INFO = f'trytond_fastbus-{version()}.dist-info'
METADATA = f'''Metadata-Version: 2.4
Name: trytond-fastbus
Version: {version()}
License-Expression: GPL-3.0-or-later
Requires-Python: >=3.10
'''


def sbom(linked, **component):
    return json.dumps({
            'components': [{
                    'name': name, 'version': version,
                    'licenses': [{'expression': 'MIT'}], **component}
                for name, version in linked]})


def wheel(directory, tag=TAG, **changes):
    "Make a wheel whose files are right, except for the changes"
    linked = crates(TARGET)
    contents = {
        'trytond_fastbus/_native.abi3.so': 'code',
        f'{INFO}/METADATA': METADATA,
        f'{INFO}/licenses/LICENSE': 'GPL',
        f'{INFO}/licenses/THIRD-PARTY.txt': ', '.join(
            map(' '.join, linked)),
        f'{INFO}/licenses/THIRD-PARTY-RUST.html': 'MIT',
        f'{INFO}/sboms/trytond-fastbus.cyclonedx.json': sbom(linked),
        }
    for name, content in changes.items():
        key, = (key for key in contents if name in key)
        contents[key] = content
    path = directory / f'trytond_fastbus-{version()}-{tag}.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def source(directory, missing=(), more=()):
    path = directory / f'trytond_fastbus-{version()}.tar.gz'
    with tarfile.open(path, 'w:gz') as archive:
        for name in sorted((check.NEEDED | set(more)) - set(missing)):
            content = METADATA.encode()
            member = tarfile.TarInfo(f'{path.name[:-7]}/{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_right_wheel_has_no_fault(tmp_path):
    assert list(check.check(wheel(tmp_path))) == []


@pytest.mark.parametrize('tag, fault', [
        ('cp310-abi3-linux_x86_64', 'platform'),
        ('cp310-abi3-manylinux_2_34_x86_64', 'platform'),
        ('cp310-abi3-win_amd64', 'platform'),
        ('cp311-abi3-manylinux_2_17_x86_64', 'abi3'),
        ('cp312-cp312-manylinux_2_17_x86_64', 'abi3'),
        ])
def test_wheel_for_others_is_refused(tag, fault, tmp_path):
    found, = check.check(wheel(tmp_path, tag))
    assert fault in found


@pytest.mark.parametrize('tag', [
        'cp314-cp314t-manylinux2014_x86_64.manylinux_2_17_x86_64',
        'cp310-abi3-musllinux_1_2_aarch64'])
def test_wheel_of_a_release_is_not_refused(tag, tmp_path):
    assert list(check.check(wheel(tmp_path, tag))) == []


@pytest.mark.parametrize('changes, fault', [
        ({'sboms': None}, "no tokio"),
        ({'sboms': sbom([('tokio', '1')])}, "no serde_json"),
        ({'sboms': sbom(crates(TARGET), licenses=[])}, "no tokio"),
        ({'LICENSE': None}, "no LICENSE"),
        ({'THIRD-PARTY.txt': None}, "no THIRD-PARTY.txt"),
        ({'THIRD-PARTY.txt': 'tokio'}, "in THIRD-PARTY.txt"),
        ({'THIRD-PARTY-RUST': None}, "no THIRD-PARTY-RUST.html"),
        ({'_native': None}, "0 native modules"),
        ({'_native': f'{ROOT}/src/lib.rs'}, f"names {ROOT}"),
        ({'METADATA': METADATA.replace(version(), '9')}, "Version is 9"),
        ({'METADATA': METADATA.replace('>=', '==')}, "Requires-Python"),
        ])
def test_incomplete_wheel_is_refused(changes, fault, tmp_path):
    found = list(check.check(wheel(tmp_path, **changes)))
    assert any(fault in line for line in found), found


def test_right_source_has_no_fault(tmp_path):
    assert list(check.check(source(tmp_path))) == []


@pytest.mark.parametrize('missing, more, fault', [
        (['Cargo.lock'], [], "no Cargo.lock"),
        (['LICENSE'], [], "no LICENSE"),
        ([], ['tests/conftest.py'], "has tests/conftest.py"),
        ([], ['target/debug/x'], "has target/debug/x"),
        ([], ['python/trytond_fastbus/_native.abi3.so'], "_native.abi3.so"),
        ])
def test_wrong_source_is_refused(missing, more, fault, tmp_path):
    found, = check.check(source(tmp_path, missing, more))
    assert fault in found


def test_crate_without_a_licence_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing 1.0"):
        notices.licences('nothing 1.0', tmp_path)


def test_licences_are_those_to_pass_on(tmp_path):
    for name in ['LICENSE-APACHE', 'LICENSE-MIT', 'NOTICE', 'README']:
        (tmp_path / name).write_text(name)
    assert notices.licences('x', tmp_path) == ['LICENSE-MIT\n', 'NOTICE\n']
    for name in ['LICENSE-MIT', 'NOTICE']:
        (tmp_path / name).unlink()
    assert notices.licences('x', tmp_path) == ['LICENSE-APACHE\n']


@pytest.mark.parametrize('text, expected', [
        ('[a](docs/a.md#b)', '[a](https://x/p/blob/v1/docs/a.md#b)'),
        ('![a](docs/a.png)', '![a](https://x/p/raw/v1/docs/a.png)'),
        ('[a](#b)', '[a](https://x/p/blob/v1/README.md#b)'),
        ('[a](https://y/z)', '[a](https://y/z)'),
        ('[bus] (see)', '[bus] (see)'),
        ])
def test_links_lead_from_anywhere(text, expected):
    assert build.absolute(text, 'https://x/p', '1') == expected


def test_project_has_urls():
    tomllib = pytest.importorskip('tomllib')
    text = (ROOT / 'pyproject.toml').read_text()
    project = tomllib.loads(text + build.urls('https://x/p', '1'))['project']
    assert project['urls']['Repository'] == 'https://x/p'
    assert project['urls']['Changelog'] == 'https://x/p/blob/v1/CHANGELOG.md'
    for url in project['urls'].values():
        if '/v1/' in url:
            assert (ROOT / url.partition('/v1/')[2]).exists()


@pytest.mark.skipif(
    not CARGO_DENY.exists(), reason="install cargo-deny, as make audit does")
def test_licence_that_is_not_allowed_is_refused(tmp_path):
    rules = (ROOT / 'deny.toml').read_text()
    for licence, status in [('Zlib', 0), ('Beerware', 4)]:
        path = tmp_path / 'deny.toml'
        path.write_text(rules.replace('"Zlib"', f'"{licence}"'))
        process = subprocess.run(
            [CARGO_DENY, '--config', path, '--locked', '--offline', 'check',
                'licenses'], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == status, process.stderr
