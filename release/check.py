"""Checks the files of a release before they are published.

It prints a line for each fault, and its exit status is then 1. Besides its own
rules, it asks auditwheel whether a wheel runs where its name says, abi3audit
whether it keeps to the stable ABI, and twine whether PyPI accepts it.
"""
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

from . import PLATFORMS, ROOT, crates, version

TEXTS = 'LICENSE', 'THIRD-PARTY.txt', 'THIRD-PARTY-RUST.html'
NEEDED = {
    'Cargo.lock', 'Cargo.toml', 'PKG-INFO', 'README.md', 'pyproject.toml',
    'python/trytond_fastbus/__init__.py', 'src/lib.rs', *TEXTS}
UNWANTED = re.compile(
    r'(\.git|\.github|\.ci|\.environments|benches|dist|docs|examples|release|'
    r'target|tests|.*__pycache__)/|.*\.(so|pyc|pem|key)$')
NAME = re.compile(
    r'trytond_fastbus-(?P<version>[^-]+)-(?P<python>[^-]+)-(?P<abi>[^-]+)-'
    r'(?P<platform>[^-]+)\.whl')


def main(dist):
    files = sorted(dist.glob('trytond_fastbus-*'))
    faults = [
        f"{path.name}: {fault}" for path in files for fault in check(path)]
    if not any(path.suffix == '.whl' for path in files):
        faults.append(f"{dist} has no wheel")
    if not any(path.suffix == '.gz' for path in files):
        faults.append(f"{dist} has no source distribution")
    if not faults:
        faults.extend(tools(files))
    for fault in faults:
        print(fault)
    if not faults:
        print(f"{len(files)} files are right")
    return bool(faults)


def check(path):
    "Generate what is wrong with a file"
    if path.suffix == '.whl':
        yield from wheel(path)
    else:
        yield from source(path)


def wheel(path):
    "Generate what is wrong with a wheel"
    name = NAME.fullmatch(path.name)
    target = name and next(
        (target for target, platform in PLATFORMS.items()
            if platform in name['platform'].split('.')), None)
    if not target:
        yield "not of a platform that PyPI takes and we build for"
        return
    free_threaded = (
        name['python'] == name['abi'].removesuffix('t')
        and name['abi'].endswith('t'))
    if (name['python'], name['abi']) != ('cp310', 'abi3') \
            and not free_threaded:
        yield "neither cp310-abi3 nor of a free-threaded CPython"
    with zipfile.ZipFile(path) as archive:
        contents = {
            info.filename: archive.read(info) for info in archive.infolist()}
    info = f"trytond_fastbus-{name['version']}.dist-info"
    yield from metadata(contents.get(f'{info}/METADATA', b'').decode())
    linked = crates(target)
    for text in TEXTS:
        if f'{info}/licenses/{text}' not in contents:
            yield f"no {text}"
    third_party = contents.get(f'{info}/licenses/THIRD-PARTY.txt', b'')
    components = set()
    for file, content in contents.items():
        if file.startswith(f'{info}/sboms/'):
            components.update(
                (component['name'], component['version'])
                for component in json.loads(content)['components']
                if component.get('licenses'))
    for crate in linked:
        if crate not in components:
            yield "no %s %s with its licence in an SBOM" % crate
        if b'%s %s' % tuple(map(str.encode, crate)) not in third_party:
            yield "no %s %s in THIRD-PARTY.txt" % crate
    modules = [file for file in contents if file.endswith('.so')]
    if len(modules) != 1:
        yield f"{len(modules)} native modules"
    for file, content in contents.items():
        for place in {str(ROOT), str(Path.home())}:
            if len(place) > 1 and place.encode() + b'/' in content:
                yield f"{file} names {place}"


def metadata(text):
    "Generate what is wrong with the metadata of a file"
    values = message_from_string(text)
    for field, wanted in [
            ('Name', 'trytond-fastbus'),
            ('Version', version()),
            ('License-Expression', 'GPL-3.0-or-later'),
            ('Requires-Python', '>=3.10'),
            ]:
        if values[field] != wanted:
            yield f"{field} is {values[field]}, not {wanted}"


def source(path):
    "Generate what is wrong with a source distribution"
    with tarfile.open(path) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
        info, = (
            archive.extractfile(member).read().decode()
            for member in archive if member.name.endswith('/PKG-INFO'))
    yield from metadata(info)
    for name in sorted(NEEDED - names):
        yield f"no {name}"
    for name in sorted(filter(UNWANTED.match, names)):
        yield f"has {name}"


def tools(files):
    "Generate what others say is wrong with the files"
    wheels = [path for path in files if path.suffix == '.whl']
    for path in wheels:
        yield from (f"{path.name}: {fault}" for fault in native(path))
    abi3 = [path for path in wheels if '-abi3-' in path.name]
    yield from failures('abi3audit', '--strict', *abi3)
    yield from failures('twine', 'check', '--strict', *files)


def native(path):
    "Generate what is wrong with the native module of a wheel"
    from elftools.elf.elffile import ELFFile
    with zipfile.ZipFile(path) as archive:
        module, = (
            name for name in archive.namelist() if name.endswith('.so'))
        elf = ELFFile(io.BytesIO(archive.read(module)))
    for section in ['.symtab', '.debug_info']:
        if elf.get_section_by_name(section):
            yield f"{module} has {section}"
    platform = path.stem.rpartition('-')[2].split('.')[-1]
    if platform.startswith('musllinux'):
        needed = {
            tag.needed
            for tag in elf.get_section_by_name('.dynamic').iter_tags()
            if tag.entry.d_tag == 'DT_NEEDED'}
        if needed != {'libc.so'}:
            yield f"{module} needs {', '.join(sorted(needed))}"
    else:
        said = execute('auditwheel', 'show', path).stdout
        if f'"{platform}"' not in said:
            yield said


def failures(*command):
    "Generate what a tool prints, if it fails"
    process = execute(*command)
    if process.returncode:
        yield process.stdout


def execute(command, *args):
    return subprocess.run(
        [Path(sys.executable).parent / command, *args], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


if __name__ == '__main__':
    sys.exit(main(ROOT / 'dist'))
