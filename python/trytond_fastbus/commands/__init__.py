"""The commands of trytond-bus.

Each command has a module of the same name. Its run(options) returns the exit
status.
"""
import importlib
import logging
import os

from trytond import commandline

from .. import logs, settings, sources
from .arguments import NAMES, WITHOUT_DATABASE, get_parser
from .order import in_order
from .report import Report

__all__ = ['Failure', 'NAMES', 'Usage', 'get_parser', 'parse', 'run']


class Failure(Exception):
    "An error that ends a command with status 1"


class Usage(Exception):
    "An error in the options, which ends a command with status 2"


def parse(args):
    "Return the options; exit if they are wrong, or for --help"
    parser, commands = get_parser()
    if hasattr(commandline, 'set_autocomplete'):
        commandline.set_autocomplete(parser)
    options, unknown = parser.parse_known_args(in_order(args, commands))
    if unknown:
        options.parser.error("unrecognized arguments: %s" % ' '.join(unknown))
    return options


def run(options):
    "Run the command of the options, and return the exit status"
    _configure_log(options)
    sources.files[:] = filter(None, options.configfile)
    options.unread = _read()
    if options.unread and options.command != 'check':
        raise Failure(options.unread)
    if options.command == 'serve':
        # Checked first, because the imports take time.
        settings.server()
    if options.command not in WITHOUT_DATABASE:
        try:
            _import_backend()
        except settings.Invalid as error:
            if options.command != 'check':
                raise
            report = Report(options.is_json)
            report.failed('configuration', str(error))
            return report.end()
    try:
        # This imports the rest of trytond, after its configuration is read.
        module = importlib.import_module('.' + options.command, __name__)
        return module.run(options)
    except Usage as error:
        options.parser.error(str(error))


def _configure_log(options):
    try:
        commandline.config_log(options)
    except Exception as error:
        # The file may name any class, which may raise anything.
        raise Failure("--logconf %s cannot be used: %s" % (
                options.logconf, _in_words(error))) from error
    logs.quieten()
    if not options.verbose and not options.logconf:
        if 'TRYTOND_LOGGING_LEVEL' not in os.environ:
            # trytond's default shows only errors.
            logging.getLogger('trytond.bus').setLevel(logging.WARNING)


def _in_words(error):
    return '%s: %s' % (type(error).__name__, logs.in_a_line(error))


def _read():
    """Read the files into the configuration, and return the reasons if they
    can't be read"""
    try:
        # trytond only logs that a file does not exist.
        sources.values()
        settings.config.update_etc(sources.paths())
    except Exception as error:
        return '; '.join(sources.reasons(error))


def _import_backend():
    "Raise Invalid if trytond's backend, or its driver, is missing"
    settings.read('uri', 'database')
    try:
        importlib.import_module('trytond.backend')
    except Exception as error:
        uri = settings.config.get('database', 'uri') or ''
        raise settings.Invalid([settings.problem(
                    'uri', 'database', uri, "has no backend with its driver "
                    "(%s): postgresql:// needs psycopg (psycopg2 up to 7.8), "
                    "sqlite:// nothing else" % _in_words(error))]) from error
