"""The command trytond-bus: the bus server."""
import argparse
import importlib.metadata
import logging
import sys

from trytond import commandline

from . import commands, settings, sources

logger = logging.getLogger('trytond.bus')


def main(args=None):
    "Serve until SIGTERM or SIGINT, or do what else is asked for"
    args = sys.argv[1:] if args is None else args
    name, *rest = commands.split(args)
    if name:
        sys.exit(commands.main(name, *rest))
    parser = get_parser()
    try:
        import argcomplete
    except ImportError:
        pass
    else:
        argcomplete.autocomplete(parser)
    options = parser.parse_args(args)
    commandline.config_log(options)
    sources.files[:] = options.configfile
    settings.config.update_etc(options.configfile)

    # What imports the rest of trytond comes after its configuration.
    if options.journal_sql:
        from . import journal
        print(journal.sql(), end='')
        return
    if options.journal_drop:
        sys.exit(_drop_journals(parser, options.database_names))
    from .server import serve
    with commandline.pidfile(options):
        try:
            status = serve(
                options.database_names, options.listen, options.admin_listen)
        except (OSError, RuntimeError, ValueError) as error:
            logger.debug("the bus server can not start", exc_info=True)
            for line in str(error).splitlines():
                print("%s: error: %s" % (parser.prog, line), file=sys.stderr)
            status = 1
    sys.exit(status)


def get_parser():
    "Return the parser of the command, with the options of trytond's others"
    parser = argparse.ArgumentParser(
        prog='trytond-bus', parents=[commandline.get_parser()],
        conflict_handler='resolve',
        description="Hold the long polls of Tryton clients and answer them "
        "with the messages of the bus.",
        epilog="Other commands, each with --help of its own: %s." % ', '.join(
            'trytond-bus %s' % name for name in commands.NAMES))
    parser.add_argument(
        '--version', action='version',
        version="%%(prog)s %s, trytond %s" % (
            importlib.metadata.version('trytond-fastbus'),
            importlib.metadata.version('trytond')))
    parser.add_argument(
        '--pidfile', dest='pidfile', metavar='FILE',
        help="set file to store the process id")
    parser.add_argument(
        '--listen', dest='listen', metavar='ADDRESS,…',
        help="listen on these addresses: HOST:PORT, *:PORT or unix:PATH "
        "(default: [bus] listen, localhost:8001)")
    parser.add_argument(
        '--admin-listen', dest='admin_listen', metavar='ADDRESS,…',
        help="answer /metrics, /health/live, /health/ready and, in a browser, "
        "/ on these addresses (default: [bus] admin_listen, none)")
    parser.add_argument(
        '--journal-sql', dest='journal_sql', action='store_true',
        help="print the statements that make the journal, for a role that "
        "may not, and exit")
    parser.add_argument(
        '--journal-drop', dest='journal_drop', action='store_true',
        help="remove the journal from the databases that -d names, and exit; "
        "set [bus] journal = False and restart all processes before")
    return parser


def _drop_journals(parser, names):
    "Remove the journals of the databases; the exit status"
    from . import journal
    if not names:
        parser.error("--journal-drop needs the databases: -d NAME ...")
    status = 0
    for name in names:
        try:
            found = journal.drop(name)
        except Exception as error:
            print(
                "%s: error: the journal of '%s' can not be removed: %s" % (
                    parser.prog, name, str(error).strip()), file=sys.stderr)
            status = 1
        else:
            print("'%s': the journal %s" % (
                    name, "is removed" if found else "is not there"))
    return status


if __name__ == '__main__':
    main()
