"""The arguments of the commands."""
import argparse
import importlib.metadata
import math
import os

from trytond import commandline

from .. import _native, settings
from ..options import BY_NAME

NAMES = {
    'serve': "hold the long polls of Tryton clients and answer them with the "
    "messages of the bus (the default)",
    'check': "verify a configuration, from the database to the clients",
    'notify': "send a notification to a user or to one client",
    'stat': "show the state of a running bus server",
    'examples': "list the examples for nginx, systemd and others, or write "
    "them into a directory",
    'tail': "show the messages on the bus of a database as they arrive",
    }

# The commands that need no backend and no database
WITHOUT_DATABASE = {'examples', 'stat'}


def get_parser():
    "Return the parser, and {name: parser} of the commands"
    parser = argparse.ArgumentParser(
        prog='trytond-bus',
        description="A message bus for the Tryton server.",
        epilog="Options may stand before or after the command. Each command "
        "has --help of its own; without a command, trytond-bus serves.")
    _add_version(parser)
    subparsers = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, title='commands')
    for name, help in NAMES.items():
        command = subparsers.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + '.',
            parents=[commandline.get_parser()], conflict_handler='resolve',
            **({'prog': parser.prog} if name == 'serve' else {}))
        command.set_defaults(parser=command)
        _add_version(command)
        if name != 'serve':
            _add_database(command, name not in WITHOUT_DATABASE)
        ADD_OPTIONS[name](command)
    return parser, subparsers.choices


def _add_version(parser):
    parser.add_argument(
        '--version', action='version', version="trytond-fastbus %s, trytond %s"
        % tuple(map(
            importlib.metadata.version, ['trytond-fastbus', 'trytond'])))


def _add_database(parser, is_required):
    # trytond's option takes several values.
    names = parser.get_default('database_names')
    default = names[0] if len(names) == 1 else None
    parser.add_argument(
        '-d', '--database', dest='database', type=_text, metavar='DATABASE',
        default=default, required=is_required and not default,
        help="specify the database name (default: TRYTOND_DATABASE_NAMES, "
        "if that is one name)")
    # It would take the arguments after the file.
    parser.add_argument(
        '-c', '--config', dest='configfile', metavar='FILE', action=_Files,
        default=[os.environ.get('TRYTOND_CONFIG')],
        help="specify a configuration file, may be repeated (default: "
        "TRYTOND_CONFIG)")


class _Files(argparse.Action):
    "Collects the values of an option, which replace its default"

    def __call__(self, parser, namespace, value, option_string=None):
        files = getattr(namespace, self.dest)
        if files is self.default:
            files = []
        setattr(namespace, self.dest, [*files, value])


def _options_of_serve(parser):
    databases, = (
        action for action in parser._actions
        if action.dest == 'database_names')
    # trytond takes any text.
    databases.type = _text
    parser.add_argument(
        '--pidfile', dest='pidfile', metavar='FILE',
        help="set file to store the process id")
    parser.add_argument(
        '--listen', dest='listen', type=_listen, metavar='ADDRESS,…',
        help="listen on these addresses: HOST:PORT, *:PORT or unix:/PATH "
        "(default: [bus] listen, localhost:8001)")
    parser.add_argument(
        '--admin-listen', dest='admin_listen', type=_addresses,
        metavar='ADDRESS,…',
        help="serve the page for administrators, /metrics, /health/live and "
        "/health/ready on these addresses, without authentication (default: "
        "[bus] admin_listen, none)")
    _add_strict(parser)
    journal = parser.add_mutually_exclusive_group()
    journal.add_argument(
        '--journal-sql', dest='journal_sql', action='store_true',
        help="print the statements that create or update the journal, and "
        "exit; the owner of the database runs them if trytond's role may not")
    journal.add_argument(
        '--journal-drop', dest='journal_drop', action='store_true',
        help="remove the journal from the databases of -d, and exit; first "
        "set [bus] journal = False and restart all processes")


def _options_of_check(parser):
    parser.add_argument(
        '--url', type=_url, metavar='URL',
        help="the address of the server as clients have it (default: [bus] "
        "url_host)")
    parser.add_argument(
        '--user', type=_text, metavar='LOGIN',
        help="log in as a client, and check that a message arrives; the "
        "password is read from the file in the environment variable "
        "TRYTONPASSFILE, or asked for")
    parser.add_argument(
        '--patient', dest='is_patient', action='store_true',
        help="with --user: check that a poll without a message waits for "
        "[bus] long_polling_timeout, and that no proxy ends it before; takes "
        "that long")
    parser.add_argument(
        '--origin', type=_url, metavar='URL',
        help="check that a web client that is loaded from this address may "
        "poll")
    parser.add_argument(
        '--uwsgi', type=_given, metavar='FILE',
        help="the ini file of the uWSGI that serves trytond: check how many "
        "waiting clients stop all requests")
    _add_strict(parser)
    _add_json(parser, "print one JSON object")


def _options_of_examples(parser):
    parser.add_argument(
        '--write', type=_given, metavar='DIR',
        help="also write them into this directory, which is created if it "
        "does not exist; a file that differs is not overwritten")


def _options_of_notify(parser):
    receiver = parser.add_mutually_exclusive_group(required=True)
    receiver.add_argument(
        '--user', type=_text, metavar='LOGIN|ID',
        help="all clients of this user")
    receiver.add_argument(
        '--client', type=_text, metavar='UUID', help="the client with this id")
    parser.add_argument(
        '--priority', type=int, choices=range(4), default=1,
        help="from 0 (low) to 3 (urgent) (default: 1)")
    parser.add_argument(
        'title', metavar='TITLE', help="the title of the notification")
    parser.add_argument(
        'body', metavar='BODY', nargs='?', help="its text")


def _options_of_stat(parser):
    parser.add_argument(
        '--admin-listen', metavar='ADDRESS',
        help="the address of the server for administrators: HOST:PORT or "
        "unix:/PATH (default: the first one of [bus] admin_listen)")
    parser.add_argument(
        '--interval', type=_interval, metavar='SECONDS', default=2,
        help="time between two tables (default: 2); if the output is no "
        "terminal, one table is printed after this time")
    parser.add_argument(
        '--filter', metavar='TEXT', default='',
        help="show only the databases whose names contain TEXT, in upper or "
        "lower case")


def _options_of_tail(parser):
    parser.add_argument(
        '--channel', dest='channels', metavar='PATTERN', nargs='+',
        default=['*'],
        help="show only the channels that match one of these patterns, with * "
        "and ? as in a shell")
    parser.add_argument(
        '--since', type=_seconds, metavar='SECONDS',
        help="first show the messages of the last SECONDS seconds (needs the "
        "journal)")
    _add_json(parser, "print each message as a JSON object")


ADD_OPTIONS = {
    'serve': _options_of_serve,
    'check': _options_of_check,
    'notify': _options_of_notify,
    'stat': _options_of_stat,
    'examples': _options_of_examples,
    'tail': _options_of_tail,
    }


def _add_strict(parser):
    parser.add_argument(
        '--strict', action='store_true',
        help="treat an unknown key of [bus] as an error, not as a warning")


def _add_json(parser, help):
    parser.add_argument(
        '--json', dest='is_json', action='store_true', help=help)


def _given(value):
    # It often comes from a variable of the shell.
    if not value:
        raise argparse.ArgumentTypeError("the value is empty")
    return value


def _text(value):
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(
            "%a is not a text in the encoding of the terminal" % value) from (
                error)
    return _given(value)


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(
            "the time must be a number of seconds from 0 on, not %s" % text)
    return seconds


def _interval(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not .1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(
            "the interval must be from 0.1 to 3600 seconds, not %s" % text)
    return seconds


def _addresses(text):
    for address in settings.addresses(text):
        try:
            _native.check_address(address)
        except ValueError as error:
            raise argparse.ArgumentTypeError("%s: it %s" % (
                    error, BY_NAME['bus', 'listen'].allowed)) from error
    return text


def _listen(text):
    if not settings.addresses(text):
        raise argparse.ArgumentTypeError(
            "'%s' has no address: it %s" % (
                text, BY_NAME['bus', 'listen'].allowed))
    return _addresses(text)


def _url(text):
    if not settings.is_url(text):
        raise argparse.ArgumentTypeError(
            "it must begin with http:// or https:// and a host, not '%s'"
            % text)
    return text
