"""What a check can see of TLS: the certificate of the bus server, and the one
that clients are shown."""
import socket
import ssl
import time
import urllib.parse

from .. import _native
from .web import TIMEOUT

DAY = 24 * 60 * 60

# Days before its end at which a certificate should have been renewed
RENEWED = 14


def configured(report, options):
    "Look at the files of [ssl], where the bus server speaks TLS"
    if not options['ssl']:
        return
    thing, (path, key) = 'certificate', options['ssl']
    try:
        _native.check_certificate(path, key)
        _tell(report, thing, "'%s'" % path, _read(path, key))
    except ssl.SSLCertVerificationError as error:
        report.failed(thing, "'%s': %s" % (path, error.verify_message))
    except (ValueError, OSError) as error:
        report.failed(thing, str(error))


def _read(path, key):
    "Read a certificate by a handshake with itself, as ssl has no other way"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # It is trusted whoever has signed it.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(path)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server.wrap_bio(to_server, to_client, server_side=True)
    client = client.wrap_bio(to_client, to_server)
    for side in [client, server, client]:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return client.getpeercert()


def served(report, url):
    "Look at the certificate that clients are shown at an address"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != 'https':
        return
    context = ssl.create_default_context()
    try:
        with socket.create_connection(
                (parts.hostname, parts.port or 443), TIMEOUT) as connection, \
                context.wrap_socket(
                    connection, server_hostname=parts.hostname) as connection:
            certificate = connection.getpeercert()
    except OSError:
        # The poll there has told why.
        return
    _tell(report, 'https', "that of %s" % parts.netloc, certificate)


def _tell(report, thing, name, certificate):
    end = ssl.cert_time_to_seconds(certificate['notAfter'])
    days = int((end - time.time()) // DAY)
    date = time.strftime('%Y-%m-%d', time.gmtime(end))
    if days < RENEWED:
        report.warning(
            thing, "%s ends on %s, in %d days: renew it, and have the server "
            "read it again (SIGHUP, systemctl reload)" % (name, date, days),
            days=days)
    else:
        report.ok(
            thing, "%s is valid until %s, for %d days" % (name, date, days),
            days=days)
