"""Checks the documentation against the code: `python -m tests.docs`.

Links lead to files and headings that exist. Keys of [bus], metrics, commands,
options and log lines are those of the code, and the reference pages name all
of them. It needs the standard library only.
"""
import ast
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'python' / 'trytond_fastbus'
# Options of trytond's commands that ours take as well
TRYTOND = {
    '--config', '--database', '--help', '--logconf', '--verbose', '--version'}
FENCE = re.compile(r'^ *```.*?^ *```', re.DOTALL | re.MULTILINE)
CODE = re.compile(r'`([^`]+)`')
LINK = re.compile(r'\]\(([^()\s]+)\)')
HEADING = re.compile(r'^#{1,6} (.+)$', re.MULTILINE)
KEY = re.compile(r'\[bus\]\s+([a-z_]+)')
METRIC = re.compile(r'trytond_bus_([a-z_]+)')
OPTION = re.compile(r'(?<![\w-])--[a-z][a-z-]*')
ROW = re.compile(r'^\| `([^`]+)`', re.MULTILINE)
LOG = re.compile(
    r'^\| (debug|info|warning|error) \| `([^`]+)`', re.MULTILINE)
QUOTED = re.compile(r'`([^`]+)`(?=[^`|]* in the log)')
LEVELS = {'exception': 'error', 'warn': 'warning'}
# What stands for a value in a format of Python or Rust
VALUE = re.compile(r'%(?:\.\d)?[srdfg]|\{[^{}]*\}')


@dataclass
class Product:
    "What the code has, by name"
    keys: set
    metrics: set
    commands: set
    options: set
    # Each text with its level, or None where it is no log line
    texts: list


def main():
    faults = list(check(product()))
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(bool(faults))


def check(found):
    "What is wrong, in words"
    for path in pages():
        text = path.read_text()
        for fault in [
                *links(path, text), *opening(path, text), *names(text, found)]:
            yield f"{path.relative_to(ROOT)}: {fault}"
    for path in sources():
        for page in re.findall(r'\bdocs/[\w/-]+\.md', path.read_text()):
            if not (ROOT / page).exists():
                yield f"{path.relative_to(ROOT)}: there is no {page}"
    docs = ROOT / 'docs'
    path = docs / 'reference' / 'configuration.md'
    for fault in values(path.read_text(), options().values()):
        yield f"{path.relative_to(ROOT)}: {fault}"
    for page, kind, documented, coded in [
            ('configuration', "key", ROW, found.keys),
            ('monitoring', "metric", METRIC, found.metrics),
            ('commands', "command", re.compile(r'^## trytond-bus (\w+)', re.M),
                found.commands),
            ('commands', "option", OPTION, found.options - TRYTOND)]:
        text = (docs / 'reference' / f'{page}.md').read_text()
        for name in sorted(coded - set(documented.findall(text))):
            yield f"docs/reference/{page}.md: does not name the {kind} {name}"


def pages():
    return [
        *sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').rglob('*.md'))]


def sources():
    "Files beside the documentation that name its pages"
    for folder in ['src', 'python', 'examples', 'benches']:
        for path in sorted((ROOT / folder).rglob('*')):
            if path.suffix in {'.rs', '.py', '.pyi', '.md', '.conf'}:
                yield path
    for name in ['Makefile', 'pyproject.toml', 'Cargo.toml']:
        yield ROOT / name


def links(path, text):
    "Links to files or headings that do not exist"
    for link in LINK.findall(FENCE.sub('', text)):
        if re.match('[a-z]+:', link):
            continue
        file, _, anchor = link.partition('#')
        target = (path.parent / file).resolve() if file else path
        if not target.exists():
            yield f"broken link to {link}"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"broken link to {link}: no such heading"


def anchors(text):
    "The anchors that a forge makes of the headings"
    return {
        re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        for heading in HEADING.findall(FENCE.sub('', text))}


def opening(path, text):
    "A page of the docs that does not say for whom it is"
    if ROOT / 'docs' not in path.parents or '{include}' in text:
        return
    first = text.split('\n\n')[1]
    if path.name != 'index.md' and not first.startswith('For '):
        yield "does not open with its readers: For administrators who …"


def names(text, found):
    "Keys, metrics, commands, options and log lines that the code has not"
    for key in {*KEY.findall(text), *keys_in_blocks(text)} - found.keys:
        yield f"unknown key [bus] {key}"
    for metric in set(METRIC.findall(text)):
        if re.sub('_(bucket|count|sum)$', '', metric) not in found.metrics:
            yield f"unknown metric trytond_bus_{metric}"
    for command in commands(text):
        first = re.match(r'trytond-bus ([a-z]+)', command)
        if first and first[1] not in found.commands:
            yield f"unknown command trytond-bus {first[1]}"
        for option in set(OPTION.findall(command)) - found.options - TRYTOND:
            yield f"unknown option {option} of trytond-bus"
    if text.startswith('# Commands\n'):
        for option in set(OPTION.findall(text)) - found.options - TRYTOND:
            yield f"unknown option {option}"
    for level, line in [
            *LOG.findall(text), *((None, t) for t in QUOTED.findall(text))]:
        if not logged(level, line, found.texts):
            yield f"unknown log line {line}" + (
                f", or not at the level {level}" if level else "")


def values(text, options):
    "Defaults and ranges that are not those of the options"
    rows = {
        name: cells for name, *cells in re.findall(
            r'^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|', text, re.MULTILINE)}
    for option in options:
        if option.name not in rows:
            continue
        default, allowed = rows[option.name]
        expected = f"{option.least} to {option.greatest}"
        if option.kind == 'int' and allowed != expected:
            yield f"{option.name} may be {expected}, not {allowed}"
        if (option.kind in {'int', 'bool'} and option.default is not None
                and default.strip('`') != str(option.default)):
            yield f"{option.name} is {option.default} by default"


def keys_in_blocks(text):
    "The keys that examples of configuration set in the section [bus]"
    for block in FENCE.findall(text):
        section = None
        for line in block.splitlines():
            if head := re.fullmatch(r' *\[([\w ]+)\] *', line):
                section = head[1]
            elif section == 'bus' and (key := re.match(r' *(\w+) *=', line)):
                yield key[1]
        for key in re.findall(r'TRYTOND_BUS__(\w+)', block):
            yield key.lower()


def commands(text):
    "The command lines of trytond-bus"
    for block in FENCE.findall(text):
        for line in block.replace('\\\n', ' ').splitlines():
            if place := re.search(r'(?<![\w/.])trytond-bus -|trytond-bus '
                    r'(?=[a-z]+ +-)', line):
                yield line[place.start():].partition(' | ')[0]
    for span in CODE.findall(FENCE.sub('', text)):
        if span.startswith('trytond-bus '):
            yield span


def logged(level, line, texts):
    pattern = re.compile('.+'.join(map(re.escape, line.split('…'))))
    match = pattern.fullmatch if level else pattern.search
    return any(
        match(text) and (None in (level, known) or level == known)
        for known, text in texts)


def product():
    modules = [
        ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob('*.py'))]
    calls = [
        node for module in modules for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)]
    rust = {
        path: path.read_text()
        for path in sorted((ROOT / 'src').rglob('*.rs'))}
    return Product(
        set(options()), metrics(rust),
        set(assigned('commands/arguments.py', 'NAMES')),
        {argument.value for call in calls if call.func.attr == 'add_argument'
            for argument in call.args if argument.value.startswith('--')},
        [*python_texts(modules, calls), *rust_texts(rust)])


def options():
    "The options of [bus] by name, from the module that imports nothing"
    found = runpy.run_path(str(PACKAGE / 'options.py'))['OPTIONS']
    return {option.name: option for option in found if option.section == 'bus'}


def assigned(path, name):
    "The texts at the top of what the module assigns to the name"
    for node in ast.parse((PACKAGE / path).read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            elements = (
                node.value.keys if isinstance(node.value, ast.Dict)
                else node.value.elts)
            return [
                element.value for element in elements
                if isinstance(element, ast.Constant)]
    raise LookupError(f"{path} has no {name}")


def metrics(rust):
    text = '\n'.join(
        text for path, text in rust.items() if 'server' in path.parts)
    found = {
        *re.findall(r'"trytond_bus_([a-z_]+)"', text),
        *re.findall(
            r'(?:counter|gauge|histogram)s?'
            r'\(\s*&?(?:self\.)?registry,\s*"([a-z_]+)"', text),
        # In a table, with their help
        *re.findall(r'\(\s*"([a-z_]+_[a-z_]+|listening)",\s*"[A-Z]', text)}
    if len(found) < 15:
        raise LookupError("the metrics are declared in another way")
    return found


def python_texts(modules, calls):
    "The texts of log lines with their level, then all others with None"
    logs = {
        call.args[0]: LEVELS.get(call.func.attr, call.func.attr)
        for call in calls
        if getattr(call.func.value, 'id', '') == 'logger' and call.args}
    for module in modules:
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield logs.get(node), plain(node.value)


def rust_texts(rust):
    for text in rust.values():
        for level, line in re.findall(
                r'(?:log::(\w+)!\(\s*target: "[\w.]+",\s*)?'
                r'"((?:[^"\\]|\\.)*)"', text, re.DOTALL):
            yield LEVELS.get(level, level) or None, plain(line)


def plain(text):
    return VALUE.sub('…', re.sub(r'\\\n\s*', '', text)).replace('%%', '%')


if __name__ == '__main__':
    main()
