"""The command line of trytond-bus, and errors in place of tracebacks."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.server import ROOT, environment
from trytond_fastbus import commands
from trytond_fastbus.commands.order import in_order

PARSERS = commands.get_parser()[1]
COMMAND = Path(sys.executable).parent / 'trytond-bus'


def run(*arguments, **environ):
    return subprocess.run(
        [COMMAND, *arguments], env=environment(**environ),
        capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize('line, command, rest', [
        ('', 'serve', ''),
        ('-d a', 'serve', '-d a'),
        ('serve -d a', 'serve', '-d a'),
        ('-d a serve --listen x', 'serve', '-d a --listen x'),
        ('-d a b', 'serve', '-d a b'),
        ('-d a b stat', 'stat', '-d a b'),
        ('-d t80 stat', 'stat', '-d t80'),
        ('-d stat', 'serve', '-d stat'),
        ('--database stat', 'serve', '--database stat'),
        ('--data stat', 'serve', '--data stat'),
        ('--database=a stat', 'stat', '--database=a'),
        ('-da stat', 'stat', '-da'),
        ('-c check check', 'check', '-c check'),
        ('-c a -v -d b check --json', 'check', '-c a -v -d b --json'),
        ('--listen stat', 'serve', '--listen stat'),
        ('-v stat', 'stat', '-v'),
        ('-c a --check -d b', 'check', '-c a -d b'),
        ('notify --user tail check', 'notify', '--user tail check'),
        ('serve -d check', 'serve', '-d check'),
        ('-- stat', 'serve', '-- stat'),
        ])
def test_command_stands_anywhere(line, command, rest):
    assert in_order(line.split(), PARSERS) == [command, *rest.split()]


@pytest.mark.parametrize('name', commands.NAMES)
@pytest.mark.parametrize('is_before', [True, False])
def test_each_command_takes_common_options_on_both_sides(name, is_before):
    common = ['-v', '-d', 'tryton', '-c', 'a.conf']
    own = ['--user', 'admin', 'T'] if name == 'notify' else []
    options = commands.parse(
        [*common, name, *own] if is_before else [name, *common, *own])
    assert options.command == name
    assert options.configfile == ['a.conf']
    assert options.verbose == 1
    assert options.parser.prog == (
        'trytond-bus' if name == 'serve' else f'trytond-bus {name}')


def test_files_may_be_repeated(monkeypatch):
    monkeypatch.setenv('TRYTOND_CONFIG', 'other.conf')
    line = 'check -d tryton'.split()
    assert commands.parse(line).configfile == ['other.conf']
    line += ['-c', 'a.conf', '-c', 'b.conf']
    assert commands.parse(line).configfile == ['a.conf', 'b.conf']


def test_database_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv('TRYTOND_DATABASE_NAMES', 'tryton')
    assert commands.parse(['check']).database == 'tryton'
    assert commands.parse(['check', '-d', 'other']).database == 'other'
    assert commands.parse([]).database_names == ['tryton']


@pytest.mark.parametrize('arguments, said', [
        (['chek'], "invalid choice: 'chek'"),
        (['check'], '-d/--database'),
        (['stat', '--unknown'], 'unrecognized arguments: --unknown'),
        (['--listen', '42550'], "'42550' has no port: it must be HOST:PORT"),
        (['--admin-listen', 'unix:x'], "the path of 'unix:x' is not absolute"),
        (['check', '-d', 'a', '--url', 'localhost'], 'http://'),
        (['check', '-d', 'a', '--url', 'http://[::1'], 'http://'),
        (['check', '-d', 'a', '--url', 'http://a b/'], 'http://'),
        (['check', '-d', 'a', '--user', ''], "--user: the value is empty"),
        (['check', '-d', ''], "-d/--database: the value is empty"),
        (['-d', 'a', ''], "-d/--database: the value is empty"),
        (['-d', 'a\udcff'], r"'a\udcff' is not a text"),
        (['--listen', ' , '], "' , ' has no address: it must be HOST:PORT"),
        (['notify', '-d', 'a', '--client', '', 'T'], "the value is empty"),
        (['examples', '--write', ''], "the value is empty"),
        (['tail', '-d', 'a', '--since', '-1'], "number of seconds from 0 on"),
        (['tail', '-d', 'a', '--since', 'nan'], "number of seconds from 0 on"),
        (['--journal-sql', '--journal-drop'], "not allowed with"),
        ])
def test_usage_that_is_wrong(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv('TRYTOND_DATABASE_NAMES', raising=False)
    with pytest.raises(SystemExit) as ended:
        commands.parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [['--help'], ['-h']])
def test_help_lists_the_commands(arguments, capsys):
    with pytest.raises(SystemExit):
        commands.parse(arguments)
    text = capsys.readouterr().out
    for name in commands.NAMES:
        assert f'\n    {name} ' in text


@pytest.mark.parametrize('arguments', [
        ['--version'], ['-v', '--version'], ['stat', '--version']])
def test_version_is_ours(arguments, capsys):
    with pytest.raises(SystemExit):
        commands.parse(arguments)
    assert capsys.readouterr().out.startswith('trytond-fastbus 0.')


# Each is another kind of error: before trytond is imported, during its import,
# in its configuration, and later.
MISTAKES = [
    ({'TRYTOND_DECIMAL_PREC': 'x'}, ['TRYTOND_DECIMAL_PREC = x']),
    ({'TRYTOND_DEV': 'yes'}, ['TRYTOND_DEV = yes']),
    ({'TRYTOND_LOGGING_LEVEL': 'loud'},
        ['TRYTOND_LOGGING_LEVEL = loud', 'whole number']),
    ({'TRYTOND_LOGGING_CONFIG': '/none'}, ['--logconf /none']),
    ({'TRYTOND_CONFIG': '/none'}, ['/none: No such file']),
    ({'TRYTOND_CONFIG': '/'}, ['/: Is a directory']),
    ({'TRYTOND_DATABASE_URI': 'foo://u:secret@x/'},
        ['TRYTOND_DATABASE_URI', 'foo:…', 'No module named']),
    ({'TRYTOND_BUS__THREADS': '1e3'},
        ['TRYTOND_BUS__THREADS: [bus] threads = 1e3', '0 to 1024']),
    ({'TRYTOND_BUS__CLASS': 'trytond_fastbus.Buss'},
        ['TRYTOND_BUS__CLASS: [bus] class = trytond_fastbus.Buss', 'Buss']),
    ({'TRYTOND_BUS__CLASS': 'Bus'}, ['[bus] class = Bus']),
    ('[bus]\nthis is no line\n', ['line 2', 'this is no line']),
    ('[bus]\ndrain = 1\ndrain = 2\n', ['line 3: [bus] drain is given twice']),
    ('[bus]\n[bus]\n', ['line 2: the section [bus] is given twice']),
    ('drain = 1\n', ['line 1: drain = 1 stands before']),
    (b'[bus]\n# \xff\n', ['not a text in']),
    (b'\xef\xbb\xbf[bus]\n', ['trytond.conf: it begins with a byte order']),
    ('[web]\ncors = https://a.example.com, https://b.example.com\n',
        ['[web] cors = https://a.example.com, https://b', 'one a line']),
    ('[web]\ncors = https://A.example.com\n', ['[web] cors', 'lower case']),
    ('[bus]\njournal = maybe\n', ['[bus] journal = maybe', 'True or False']),
    ('[database]\nuri = postgresql://localhost:x/\n[bus]\njournal = True\n',
        ['[database] uri = postgresql:…: it must be']),
    ('[database]\nuri = localhost\n', ['[database] uri', 'SCHEME://']),
    ('[database]\nuri =\n', ['[database] uri', 'SCHEME://']),
    ('[bus]\njournal = True\nclass = os.path\n',
        ['[bus] class = os.path', 'no methods publish and subscribe']),
    ('[ssl]\nprivatekey = /none\n',
        ['[ssl] privatekey = /none', '[ssl] certificate names no file']),
    ('[bus]\nssl = on\n',
        ['trytond.conf: [bus] ssl = on', '[ssl] certificate names no file']),
    ('[ssl]\ncertificate = /none\n[bus]\njournal = True\n', ['/none']),
    ]


@pytest.mark.parametrize('mistake, words', MISTAKES)
def test_server_tells_a_mistake_in_a_line(mistake, words, tmp_path):
    if isinstance(mistake, dict):
        environ = mistake
    else:
        path = tmp_path / 'trytond.conf'
        path.write_bytes(
            mistake if isinstance(mistake, bytes) else mistake.encode())
        environ = {'TRYTOND_CONFIG': str(path)}
    failed = run('-d', 'tryton', '--listen', 'localhost:0', **environ)
    assert failed.returncode == 1, failed.stderr
    lines = failed.stderr.splitlines()
    line = lines[-1]
    # trytond itself logs that a file is missing.
    assert lines in [[line], ['could not load /none', line],
        ['could not load /', line]]
    assert line.startswith('trytond-bus: error: ')
    for word in words:
        assert word in line
    assert 'secret' not in line


@pytest.mark.parametrize('name', ['check', 'notify', 'tail', 'serve'])
def test_driver_that_is_missing_is_told(name, tmp_path):
    for driver in ['psycopg', 'psycopg2']:
        (tmp_path / f'{driver}.py').write_text(
            f"raise ModuleNotFoundError('No module named {driver}')")
    path = os.pathsep.join([str(tmp_path), environment()['PYTHONPATH']])
    own = ['--user', 'admin', 'T'] if name == 'notify' else []
    failed = run(
        name, '-d', 'tryton', *own, PYTHONPATH=path,
        TRYTOND_DATABASE_URI='postgresql://')
    assert failed.returncode == 1
    line, = (failed.stderr + failed.stdout).splitlines()
    assert line.startswith('failed   configuration: ') == (name == 'check')
    assert 'No module named psycopg' in line and 'needs psycopg' in line


def test_no_command_shows_the_lines_of_the_connection_pool():
    done = subprocess.run([sys.executable, '-c', '''
import logging
from trytond_fastbus import commands
commands.run(commands.parse(['examples']))
for name in ['psycopg.pool', 'trytond.bus']:
    logging.getLogger(name).warning("a line of %s", name)
'''], env=environment(), capture_output=True, text=True, timeout=60)
    line, = done.stderr.splitlines()
    assert "a line of trytond.bus" in line


def test_check_of_a_missing_driver_is_one_json_object():
    failed = run(
        'check', '-d', 'tryton', '--json', TRYTOND_DATABASE_URI='none://')
    assert failed.returncode == 1
    finding, = json.loads(failed.stdout)['findings']
    assert finding['thing'] == 'configuration'
    assert 'TRYTOND_DATABASE_URI: [database] uri = none:' in finding['text']


def test_text_that_the_terminal_lacks_is_shown(tmp_path):
    path = tmp_path / 'trytond.conf'
    path.write_text('[bus]\nclass = böse.Bus\n', 'utf-8')
    failed = run(
        'check', '-c', path, '-d', ':memory:', PYTHONIOENCODING='ascii')
    assert r'[bus] class = b\xf6se.Bus' in failed.stdout
    assert failed.stderr == ''
    assert run('serve', '--help', PYTHONIOENCODING='ascii').returncode == 0


@pytest.mark.skipif(os.getuid() != 0, reason="become root")
def test_user_without_a_name_is_told():
    # As in a container that runs as any user. Python reads these variables.
    named = dict.fromkeys(['LOGNAME', 'USER', 'LNAME', 'USERNAME'], '')
    failed = subprocess.run(
        [sys.executable, '-c', 'import os, pwd\n'
            'from trytond_fastbus import cli, commands\n'
            'os.setuid(54321)\n'
            'cli.main(["stat"])\n'],
        env=environment(**named), capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr == (
        "trytond-bus: error: the user with the id 54321 has no name, and "
        "trytond needs one: set LOGNAME in the environment\n")


def test_examples_are_listed_and_written(tmp_path):
    names = run('examples').stdout.splitlines()
    assert {'nginx/same-origin.conf', 'systemd/trytond-bus.service',
        'sao/custom.js', 'trytond.conf'} <= set(names)
    target = tmp_path / 'new' / 'directory'
    for _ in range(2):
        done = run('examples', '--write', target)
        assert done.stdout.splitlines() == names
    for name in names:
        assert (target / name).read_bytes() == (
            ROOT / 'examples' / name).read_bytes()
    (target / 'trytond.conf').write_text('mine')
    failed = run('examples', '--write', target)
    assert failed.returncode == 1
    assert f"'{target / 'trytond.conf'}' exists" in failed.stderr
    assert (target / 'trytond.conf').read_text() == 'mine'
    failed = run('examples', '--write', target / 'trytond.conf' / 'x')
    assert failed.returncode == 1
    assert 'Not a directory' in failed.stderr


def test_unknown_key_is_an_error_if_strict(tmp_path):
    path = tmp_path / 'trytond.conf'
    path.write_text('[bus]\njornal = True\n')
    failed = run('-c', path, '--strict')
    assert failed.returncode == 1
    assert "[bus] jornal is no option" in failed.stderr
    failed = run('-c', path)
    assert "WARNING trytond.bus" in failed.stderr
    assert "is 'journal' meant?" in failed.stderr
    failed = run('check', '-c', path, '-d', 'tryton', '--strict')
    assert "failed   configuration: " in failed.stdout
