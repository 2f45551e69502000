"""The TLS checks: the certificate of the bus server, and the certificate that
clients receive."""
import socket
import ssl
import urllib.parse

from .. import _native, certificate
from .web import TIMEOUT


def configured(report, options):
    "Check the files of [ssl], if the bus server speaks TLS"
    if not options['ssl']:
        return
    thing, (path, key) = 'certificate', options['ssl']
    try:
        _native.check_certificate(path, key)
        _tell(report, thing, "'%s'" % path, certificate.read(path, key))
    except ssl.SSLCertVerificationError as error:
        report.failed(thing, "'%s': %s" % (path, certificate.reason(error)))
    except (ValueError, OSError) as error:
        report.failed(thing, str(error))


def served(report, url):
    "Check the certificate that clients receive at an address"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != 'https':
        return
    context = ssl.create_default_context()
    try:
        with socket.create_connection(
                (parts.hostname, parts.port or 443), TIMEOUT) as connection, \
                context.wrap_socket(
                    connection, server_hostname=parts.hostname) as connection:
            found = connection.getpeercert()
    except OSError:
        # The poll has already reported the reason.
        return
    _tell(report, 'https', "that of %s" % parts.netloc, found)


def _tell(report, thing, name, found):
    days, date = certificate.end(found)
    if days < certificate.RENEWED:
        report.warning(
            thing, "%s expires on %s, in %d days: renew it, then let the "
            "server read it again (SIGHUP, systemctl reload)"
            % (name, date, days),
            days=days)
    else:
        report.ok(
            thing, "%s is valid until %s, for %d days" % (name, date, days),
            days=days)
