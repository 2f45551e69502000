"""trytond-bus check --uwsgi: the threads that waiting clients take."""
import pytest
from trytond_fastbus.commands import uwsgi
from trytond_fastbus.commands.report import Report

pytestmark = pytest.mark.one_series


@pytest.mark.parametrize('text, status, words', [
        # As the official image of series 5.6 has it
        ('http-socket=0.0.0.0:8000\nplugins=python3\nenv=A=$(A)\nenv=B=$(B)\n'
            'wsgi=trytond.application:app\nprocesses=1\nthreads=4\n',
            'warning', '4 of them stop all requests'),
        ('workers = 5\nthreads = 2\n', 'warning', '10 of them'),
        ('processes = 2\n', 'failed', 'enable-threads = true'),
        ('enable-threads\n', 'warning', '1 of them'),
        ('enable_threads = true\np = 100\n', 'ok', '100 threads'),
        ('processes = 10\nthreads = 20\n', 'ok', '200 threads'),
        ('gevent = 1000\n', 'ok', 'gevent'),
        ('threads = many\n', 'failed',
            'cannot be read: threads = many must be a whole number'),
        ('processes = 0\n', 'failed', 'processes = 0 must be'),
        ('master = true\n[other]\nthreads = 200\n', 'failed', 'neither'),
        ])
def test_threads_are_counted(tmp_path, capsys, text, status, words):
    path = tmp_path / 'uwsgi.conf'
    path.write_text('[uwsgi]\n' + text)
    uwsgi.look(Report(), path)
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith(status)
    assert words in line


@pytest.mark.parametrize('text', [
        None, 'threads = 4\n', '<uwsgi/>', '[wsgi]\nthreads = 4\n'])
def test_file_that_can_not_be_read_is_told(tmp_path, capsys, text):
    path = tmp_path / 'uwsgi.conf'
    if text:
        path.write_text(text)
    uwsgi.look(Report(), path)
    assert capsys.readouterr().out.startswith('failed   uWSGI: ')
