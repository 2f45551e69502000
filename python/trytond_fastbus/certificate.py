"""The certificate of the bus server, and its expiry."""
import logging
import ssl
import time

logger = logging.getLogger('trytond.bus')

DAY = 24 * 60 * 60

# Days before its expiry when a certificate should have been renewed
RENEWED = 14


def warn(path, key):
    "Log that clients refuse the certificate, or that it expires soon"
    try:
        days, date = end(read(path, key))
    except ssl.SSLError as error:
        logger.error(
            "clients refuse the certificate '%s': %s", path, reason(error))
        return
    if days < RENEWED:
        logger.warning(
            "the certificate '%s' expires on %s, in %d days: renew it",
            path, date, days)


def read(path, key):
    "Read a certificate by a handshake in memory, as ssl has no other way"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Trusted regardless of its issuer.
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


def reason(error):
    "The text of an error about the times of a certificate, and the remedy"
    return "%s: renew it, or set the clock of this host" % (
        getattr(error, 'verify_message', error))


def end(certificate):
    "Return the days until a certificate expires, and the date"
    seconds = ssl.cert_time_to_seconds(certificate['notAfter'])
    return int((seconds - time.time()) // DAY), time.strftime(
        '%Y-%m-%d', time.gmtime(seconds))
