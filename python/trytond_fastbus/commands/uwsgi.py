"""The check of uWSGI, which may serve trytond. Each waiting client occupies
one of its threads."""
import configparser

from ..logs import in_a_line

# Waiting clients soon occupy fewer threads than this.
ENOUGH = 100

# The values that uWSGI treats as true
TRUE = {'1', 'true', 'yes', 'on', ''}


def look(report, path):
    "Count the threads of a configuration in uWSGI's ini format"
    thing = 'uWSGI'
    try:
        options = _read(path)
        processes = _number(options, 'processes', 'workers', 'p')
        threads = _number(options, 'threads')
    except (OSError, ValueError, configparser.Error) as error:
        report.failed(thing, "%s cannot be read: %s" % (
                path, in_a_line(error)))
        return
    if options.get('gevent') or options.get('gevent-loop'):
        report.ok(thing, "%s has gevent: a waiting client takes no thread"
            % path)
    elif threads < 2 and (
            options.get('enable-threads', '0').lower() not in TRUE):
        report.failed(
            thing, "%s has neither threads nor enable-threads, so the bus "
            "does not listen: set enable-threads = true" % path)
    elif processes * threads < ENOUGH:
        report.warning(
            thing, "%s has processes = %d and threads = %d. Each waiting "
            "client takes a thread, and %d of them stop all requests, with "
            "the stock bus as well: run trytond-bus beside it, and send "
            "/<database>/bus there" % (
                path, processes, threads, processes * threads))
    else:
        report.ok(thing, "%s has %d threads for waiting clients and requests"
            % (path, processes * threads))


def _read(path):
    # A key may be repeated, and stand alone.
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True)
    with open(path) as file:
        parser.read_file(file)
    if 'uwsgi' not in parser:
        raise ValueError("it has no section [uwsgi]")
    return {
        key.replace('_', '-'): value or ''
        for key, value in parser['uwsgi'].items()}


def _number(options, *names):
    "The value of the first of these options, 1 if none is set"
    for name in names:
        if text := options.get(name):
            if not text.isdecimal() or not int(text):
                raise ValueError(
                    "%s = %s must be a whole number from 1 on" % (name, text))
            return int(text)
    return 1
