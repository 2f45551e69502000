"""The checks of the configuration and of the limits of this machine."""
import resource
from contextlib import suppress

from trytond.tools import resolve

from .. import settings, sources
from ..server import bus_class


def configuration(report, unread, is_strict):
    "Return the options of the bus server, None if they can't be used"
    thing = 'configuration'
    if unread:
        report.failed(thing, "it cannot be read: %s" % unread)
        return None
    files = ', '.join(sources.paths())
    variables = ', '.join(sorted(
            value.origin for value in sources.variables().values()))
    if not files and not variables:
        report.warning(
            thing, "neither -c, nor TRYTOND_CONFIG, nor another variable of "
            "the environment names any, so trytond's defaults are used")
    for line in sources.unknown():
        (report.failed if is_strict else report.warning)(thing, line)
    try:
        options = settings.server()
    except settings.Invalid as error:
        for problem in error.problems:
            report.failed(thing, problem)
        return None
    if files:
        report.ok(thing, "%s can be read" % files)
    if variables:
        report.ok(thing, "from the environment: %s" % variables)
    return options


def configured_class(report):
    "Check the class that trytond is configured to use"
    thing, name = 'class', settings.config.get('bus', 'class')
    try:
        bus = bus_class()
    except settings.Invalid as error:
        report.failed(thing, "%s: trytond does not start" % error)
        return
    if name and resolve(name) is not bus:
        report.warning(
            thing, "[bus] class = %s does not belong to trytond-fastbus, so "
            "trytond publishes without the journal: set it to "
            "trytond_fastbus.Bus" % name)
    elif name:
        report.ok(thing, "[bus] class = %s" % name)
    elif settings.journal():
        report.warning(
            thing, "[bus] class is not set, so trytond publishes without the "
            "journal unless it calls trytond_fastbus.install(): set it to "
            "trytond_fastbus.Bus")


def allow_subscribe(report, options):
    if options['allow_subscribe']:
        report.ok('allow_subscribe', "[bus] allow_subscribe is on")
    else:
        report.failed(
            'allow_subscribe', "[bus] allow_subscribe is off, so clients "
            "stop polling until their next login: set it to True for trytond "
            "and trytond-bus")


def url_host(report):
    "Warn of an address to which trytond's own route compares in vain"
    with suppress(settings.Invalid):
        url = settings.read('url_host')
        if url and not url.endswith('/'):
            report.warning(
                'url_host', "[bus] url_host = %s has no slash at its end, so "
                "trytond's own route answers each poll with 401: add it" % url)


def check_access(report, options):
    "Report which users may follow the chat of a record, if records have chats"
    if not settings.has_chat():
        return
    report.ok(
        'check_access', "[bus] check_access is on for trytond-bus"
        if options['check_access'] else
        "[bus] check_access is off for trytond-bus, so any user may follow "
        "the chat of any record there, as with trytond's own bus")


def open_files(report, options):
    "Compare the limit with the number of files that the bus server may open"
    # The server raises the soft limit to the hard one.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.descriptors(options)
    if limit != resource.RLIM_INFINITY and limit < needed:
        report.warning(
            'open files', "a process that is started from here may open %d "
            "files, and [bus] max_connections = %d needs %d: raise the limit "
            "(LimitNOFILE of systemd, ulimit -n), or lower max_connections"
            % (limit, options['max_connections'], needed))
    else:
        report.ok(
            'open files', "%s may be open, and [bus] max_connections needs %d"
            % ("any number" if limit == resource.RLIM_INFINITY else limit,
                needed))
