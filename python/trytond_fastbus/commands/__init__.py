"""The commands of trytond-bus beside the server, and their options.

Each has a module of its name, whose run(options) returns the exit status.
"""
import argparse
import configparser
import importlib
import os
import sys
import urllib.parse

from trytond import commandline

from .. import settings, sources

# What each does
NAMES = {
    'check': "verify a configuration, from the database to the clients",
    'notify': "send a notification to a user or to one client",
    'stat': "show the state of the bus server that runs",
    'tail': "show what passes on the bus of a database",
    }


class Failure(Exception):
    "What ends a command with the status 1, in words"


class Usage(Exception):
    "What is wrong with the options, for the status 2"


def split(args):
    """Return the command that the arguments name, or None, and the others.

    It is the first of them or, as trytond's commands know nothing but
    options, one of its name anywhere.
    """
    if args and args[0] in NAMES:
        return args
    for option in args:
        name = option.removeprefix('--')
        if name != option and name in NAMES:
            return [name, *(arg for arg in args if arg != option)]
    return [None, *args]


def main(name, *args):
    "Do what the command of this name does, and return the exit status"
    parser = get_parser(name)
    options = parser.parse_args(args)
    if not options.configfile:
        options.configfile = [os.environ.get('TRYTOND_CONFIG')]
    commandline.config_log(options)
    unread = read(options.configfile)
    if unread and name != 'check':
        return _end(parser, "the configuration can not be read: %s" % unread)
    options.unread = unread
    try:
        # It imports the rest of trytond, after its configuration is read.
        return importlib.import_module('.' + name, __name__).run(options)
    except Usage as error:
        parser.error(str(error))
    except Failure as error:
        return _end(parser, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads what is still to be written at the exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _end(parser, error):
    print("%s: error: %s" % (parser.prog, error), file=sys.stderr)
    return 1


def read(files):
    "Read these files into the configuration, and return why they can't be"
    try:
        for path in filter(None, files):
            # trytond only logs that there is none.
            open(os.path.expanduser(path)).close()
        sources.files[:] = files
        settings.config.update_etc(files)
    except (OSError, ValueError, configparser.Error) as error:
        return ' '.join(str(error).split())


def get_parser(name):
    "Return the parser of a command"
    # That of the server takes several databases, and would take what follows.
    parser = argparse.ArgumentParser(
        prog='trytond-bus ' + name, parents=[commandline.get_parser()],
        conflict_handler='resolve', description=NAMES[name].capitalize() + '.')
    parser.add_argument(
        '-c', '--config', dest='configfile', metavar='FILE', action='append',
        help="specify a configuration file, may be repeated")
    parser.add_argument(
        '-d', '--database', dest='database', metavar='DATABASE',
        required=name != 'stat', help="specify the database name")
    globals()['_options_of_' + name](parser)
    return parser


def _options_of_check(parser):
    parser.add_argument(
        '--url', type=_url, metavar='URL',
        help="the address of the server that clients are given "
        "(default: [bus] url_host)")
    parser.add_argument(
        '--user', metavar='LOGIN',
        help="log in as a client, and see a message arrive; the password is "
        "read from the file in the environment variable TRYTONPASSFILE, or "
        "asked for")
    parser.add_argument(
        '--origin', type=_url, metavar='URL',
        help="where the web client is loaded from: see whether it may poll")
    _add_json(parser, "print one JSON object")


def _options_of_notify(parser):
    receiver = parser.add_mutually_exclusive_group(required=True)
    receiver.add_argument(
        '--user', metavar='LOGIN|ID', help="all clients of this user")
    receiver.add_argument(
        '--client', metavar='UUID', help="the client with this id")
    parser.add_argument(
        '--priority', type=int, choices=range(4), default=1,
        help="from 0 (low) to 3 (urgent), 1 by default")
    parser.add_argument('title', metavar='TITLE', help="a line")
    parser.add_argument(
        'body', metavar='BODY', nargs='?', help="a short text")


def _options_of_stat(parser):
    parser.add_argument(
        '--admin-listen', metavar='ADDRESS',
        help="where the server listens for administrators: HOST:PORT or "
        "unix:PATH (default: [bus] admin_listen, the first of them)")
    parser.add_argument(
        '--interval', type=_interval, metavar='SECONDS', default=2,
        help="show the state this often (default: 2), or, where the output is "
        "no terminal, once after so long")


def _options_of_tail(parser):
    parser.add_argument(
        '--channel', dest='channels', metavar='PATTERN', nargs='+',
        default=['*'],
        help="only channels like one of these, with * and ? as in a shell")
    parser.add_argument(
        '--since', type=float, metavar='SECONDS',
        help="show the messages of so many last seconds first, from the "
        "journal")
    _add_json(parser, "print each message as a JSON object")


def _add_json(parser, help):
    parser.add_argument(
        '--json', dest='is_json', action='store_true', help=help)


def _interval(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not .1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(
            "the interval must be from 0.1 to 3600 seconds, not %s" % text)
    return seconds


def _url(text):
    url = urllib.parse.urlsplit(text)
    if url.scheme not in {'http', 'https'} or not url.hostname:
        raise argparse.ArgumentTypeError(
            "'%s' does not begin with http:// or https:// and a host" % text)
    return text
