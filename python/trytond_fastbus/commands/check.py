"""trytond-bus check: checks a configuration, from the database to the clients.
"""
import getpass
import os
import sys
from contextlib import suppress

from .. import settings
from . import Failure, Usage, certificate, clients, database, here, uwsgi
from .poll import poll
from .report import Report
from .session import Session

# The checks that need a connection to the database
LOOKS = [
    database.listening, database.journal_table, database.privileges,
    database.connections, database.sessions]


def run(options):
    "Run the checks in turn, and return the exit status"
    report = Report(options.is_json)
    found = here.configuration(report, options.unread, options.strict)
    if options.unread:
        return report.end()
    url = options.url or _url_host()
    if options.is_patient and not options.user:
        raise Usage("--patient needs --user LOGIN")
    if not url and (options.user or options.origin):
        raise Usage(
            "--user and --origin need the address of the server: --url URL, "
            "or [bus] url_host in the configuration")
    if options.url and not url.endswith('/'):
        url += '/'
    # Read first, because the user may be prompted for it.
    password = _password(options) if options.user else None
    here.configured_class(report)
    if found:
        here.allow_subscribe(report, found)
        here.check_access(report, found)
        here.open_files(report, found)
        certificate.configured(report, found)
    here.url_host(report)
    if options.uwsgi:
        uwsgi.look(report, options.uwsgi)
    connection = database.reached(report, options.database)
    if connection:
        try:
            for look in LOOKS:
                # The problems of the configuration are reported above.
                with suppress(settings.Invalid):
                    look(report, options.database, connection)
            if url:
                _look_from_outside(report, options, url, password, connection)
        finally:
            connection.close()
    elif url:
        _look_from_outside(report, options, url, password, None)
    return report.end()


def _url_host():
    with suppress(settings.Invalid):
        return settings.read('url_host')


def _look_from_outside(report, options, url, password, connection):
    "Check the server from a client's view"
    name = options.database
    bus_url = clients.address(url, name)
    if options.user:
        session = Session(url, name, options.user)
        if not session.login(report, password):
            clients.answers(report, bus_url)
        else:
            try:
                bus_url = session.bus_url
                if bus_url and clients.answers(report, bus_url):
                    poll(report, session, connection, options.is_patient)
            finally:
                session.logout(report)
    else:
        clients.answers(report, bus_url)
    if bus_url:
        certificate.served(report, bus_url)
    if options.origin and bus_url:
        clients.origin(report, bus_url, options.origin)


def _password(options):
    "The password, read as trytond-admin does"
    path = os.environ.get('TRYTONPASSFILE')
    if path:
        try:
            with open(path) as file:
                password, = file.read().splitlines()
        except (OSError, ValueError) as error:
            raise Failure(
                "no password can be read from the file '%s' of "
                "TRYTONPASSFILE, which must have one line: %s"
                % (path, error)) from error
        return password
    try:
        return getpass.getpass(
            "password of '%s' for '%s': " % (options.user, options.database),
            sys.stderr)
    except (EOFError, AttributeError) as error:
        # The latter if the standard input is closed.
        raise Failure(
            "no password was entered: set TRYTONPASSFILE to the path of a "
            "file that contains it") from error
