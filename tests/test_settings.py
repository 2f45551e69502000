"""The table of options, and the values that are refused."""
import doctest
import logging

import pytest
from trytond_fastbus import settings, sources
from trytond_fastbus.options import BY_NAME, OPTIONS, markdown

NUMBERS = [option for option in OPTIONS if option.kind == 'int']


def name(option):
    return f'{option.section}-{option.name}'


@pytest.fixture
def told(tmp_path, monkeypatch):
    "Return the lines about a configuration file with this text"
    def told(text):
        path = tmp_path / 'trytond.conf'
        path.write_text(text)
        monkeypatch.setattr(sources, 'files', [str(path)])
        return sources.unknown()
    return told


def test_examples_in_docstrings_are_right():
    failed, tried = doctest.testmod(settings)
    assert tried and not failed


@pytest.mark.parametrize('option', OPTIONS, ids=name)
def test_option_is_whole(option):
    assert option.help and not option.help.endswith('.')
    assert option.allowed.startswith('must ')
    assert (option.least is None) == (option.kind != 'int')
    if option.default is not None and option.kind == 'int':
        assert option.least <= option.default <= option.greatest


def test_options_are_told_apart():
    assert len(BY_NAME) == len(OPTIONS) == len(list(markdown())) - 2


@pytest.mark.parametrize('option', NUMBERS, ids=name)
def test_bounds_of_a_number_are_allowed(option, configure):
    for value in [option.least, option.greatest]:
        configure(option.section, **{option.name: value})
        assert settings.read(option.name, option.section) == value


@pytest.mark.parametrize('option', NUMBERS, ids=name)
def test_number_out_of_its_bounds_is_refused(option, configure):
    for value in [option.least - 1, option.greatest + 1, 10 ** 20]:
        configure(option.section, **{option.name: value})
        with pytest.raises(settings.Invalid) as refused:
            settings.server()
        problem, = refused.value.problems
        assert f'[{option.section}] {option.name} = {value}: ' in problem
        assert f'from {option.least} to {option.greatest}' in problem


@pytest.mark.parametrize('key, value', [
        ('allow_subscribe', 'maybe'), ('journal', ''), ('ssl', '2'),
        ('listen', '42550'), ('listen', ','), ('listen', 'localhost:99999'),
        ('listen', 'unix:relative'), ('listen', '::1:8001'),
        ('admin_listen', 'localhost:8002 localhost:8003'),
        ('url_host', 'localhost:8001/'), ('url_host', 'ftp://localhost/'),
        ('url_host', 'http://'), ('url_host', 'http://a:port/'),
        ('url_host', 'http://[::1/'), ('url_host', 'http://a b/'),
        ('listen', 'localhost:+80'), ('listen', 'unix:/' + 'x' * 107)])
def test_text_that_is_no_value_is_refused(key, value, configure):
    configure('bus', **{key: value})
    with pytest.raises(settings.Invalid) as refused:
        settings.server()
    problem, = refused.value.problems
    assert f'[bus] {key} = {value}: it must' in problem


@pytest.mark.parametrize('value', ['', '5m', '1e3', '1_0', '1.5', '١', '64M'])
@pytest.mark.parametrize('option', ['threads', 'max_polls'])
def test_number_is_written_in_digits(option, value, configure):
    configure('bus', **{option: value})
    with pytest.raises(settings.Invalid, match=f'{option} = {value}: it must'):
        settings.read(option)


def test_all_problems_are_told_at_once(configure):
    configure('bus', threads='many', drain=-1, journal='maybe')
    with pytest.raises(settings.Invalid) as refused:
        settings.server()
    assert len(refused.value.problems) == 3


def test_file_and_variable_of_a_value_are_named(
        configure, told, monkeypatch):
    told('[bus]\ndrain = -1\n')
    monkeypatch.setenv('TRYTOND_BUS__THREADS', 'many')
    configure('bus', threads='many', drain=-1, hold_time=0)
    with pytest.raises(settings.Invalid) as refused:
        settings.server()
    origins = [line.split(': ')[0] for line in refused.value.problems]
    assert origins == [
        'TRYTOND_BUS__THREADS', sources.files[0], 'configuration']


def test_class_uses_the_nearest_number_and_says_so_once(configure, caplog):
    configure('bus', select_timeout=-7)
    with caplog.at_level(logging.ERROR, 'trytond.bus'):
        assert [settings.select_timeout() for _ in range(3)] == [1, 1, 1]
    record, = caplog.records
    assert '[bus] select_timeout = -7' in record.message
    assert '1 is used' in record.message


def test_class_refuses_invalid_values(configure):
    configure('bus', journal='maybe')
    with pytest.raises(settings.Invalid, match='journal = maybe'):
        settings.journal()


@pytest.mark.parametrize('text, words', [
        ('[bus]\njornal = 1', "[bus] jornal is no option of trytond or "
            "trytond-bus, and is ignored: is 'journal' meant?"),
        ('[bus]\nallow_subscrib = 1', "is 'allow_subscribe' meant?"),
        ('[bus]\nxyz = 1', '[bus] xyz is no option'),
        ('[buss]\njournal = 1', '[buss] is ignored: is [bus] meant?'),
        ('[Bus]\njournal = 1', '[Bus] is ignored'),
        ('[trytond-bus]\nlisten = 1', '[trytond-bus] is ignored'),
        ('[poll]\njournal = 1\ndrain = 1', '[poll] is ignored'),
        ('[web]\nallow_subscribe = 1',
            '[web] allow_subscribe is ignored: is [bus] allow_subscribe'),
        ])
def test_key_that_nothing_reads_is_reported(told, text, words):
    line, = told(text)
    assert words in line
    assert line.startswith(sources.files[0] + ': ')


def test_key_of_others_is_not_reported(told):
    assert not told(
        '[DEFAULT]\nx = 1\n[web]\nlisten = a\ncors = b\n'
        'cache_timeout = 1\nnum_proxies = 1\n[cache]\nclass = d\n'
        'select_timeout = 1\n[business]\na = 1\n'
        '[bus]\nclass = c\nurl_host = d\n[wsgi bus]\nx = 1\n')


def test_variable_that_trytond_ignores_is_told(told, monkeypatch):
    monkeypatch.setenv('TRYTOND_BUS_CLASS', 'trytond_fastbus.Bus')
    line, = told('[bus]\n')
    assert 'TRYTOND_BUS__CLASS' in line
