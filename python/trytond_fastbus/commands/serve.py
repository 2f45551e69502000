"""trytond-bus serve: the bus server."""
import logging
import sys

from trytond import commandline

from .. import journal, logs, sources
from ..logs import in_a_line
from ..server import serve
from . import Failure, Usage
from .connection import connect

logger = logging.getLogger('trytond.bus')


def run(options):
    "Serve until SIGTERM or SIGINT, or print or drop the journal"
    if options.journal_sql:
        print(journal.sql(), end='')
        return 0
    if options.journal_drop:
        return _drop_journals(options)
    logs.configure(options)
    unknown = sources.unknown()
    if unknown and options.strict:
        raise Failure('\n'.join(unknown))
    for line in unknown:
        logger.warning(line)
    with commandline.pidfile(options):
        return serve(
            options.database_names, options.listen, options.admin_listen)


def _drop_journals(options):
    "Remove the journals of the databases, and return the exit status"
    if not options.database_names:
        raise Usage("--journal-drop needs the databases: -d NAME …")
    status = 0
    for name in options.database_names:
        try:
            # This reports at once that a database does not exist.
            connect(name).close()
            found = journal.drop(name)
        except Exception as error:
            print(
                "%s: error: the journal of '%s' cannot be removed: %s" % (
                    options.parser.prog, name, in_a_line(error)),
                file=sys.stderr)
            status = 1
        else:
            print("'%s': the journal %s" % (
                    name, "is removed" if found else "does not exist"))
    return status
