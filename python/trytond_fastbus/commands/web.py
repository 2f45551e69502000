"""Requests as clients make them, and explanations of their answers."""
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

# Seconds after which a server that does not answer fails
TIMEOUT = 15

# The meanings of a status, if the server should be the bus
STATUSES = {
    200: "what answers there is not the bus: it takes a request without a "
    "session. Look at where the proxy sends /<database>/bus",
    400: "the request does not arrive as it was sent: look at the proxy",
    403: "it is forbidden: a rule of the proxy, or no bus answers there",
    404: "it is not found: the proxy sends /<database>/bus elsewhere, or the "
    "database is unknown there",
    405: "POST is not allowed: what answers there serves files, not the bus. "
    "Look at where the proxy sends /<database>/bus",
    411: "the request has lost its length on the way: look at the proxy",
    413: "the request is too large for the proxy",
    429: "there are too many requests: a limit of the proxy, or [bus] "
    "session_polls",
    500: "the server has failed: its log says why",
    501: "[bus] allow_subscribe is off in the configuration of the server "
    "there: clients do not ask again until their next login",
    502: "the proxy finds no server behind it: trytond-bus does not run, or "
    "listens on another address than the proxy asks ([bus] listen)",
    503: "the proxy or the server is out of service: trytond-bus does not run "
    "or is overloaded",
    504: "the proxy gave up to wait: its time-out (proxy_read_timeout) must "
    "be longer than [bus] long_polling_timeout",
    }


class Answer(NamedTuple):
    """The answer of a server; without an answer status is None and reason is
    set"""

    status: int | None
    headers: dict = {}
    body: bytes = b''
    reason: str = ''

    @property
    def json(self):
        "The decoded body, None if it is not JSON"
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def words(self):
        "The meaning of an answer that was not expected"
        if self.status is None:
            return self.reason
        if 300 <= self.status < 400:
            meaning = (
                "it redirects to '%s', where not every client follows: give "
                "them that address" % self.headers.get('Location', ''))
        else:
            meaning = STATUSES.get(
                self.status, "no bus answers so: look at the proxy")
        return "%d, %s" % (self.status, meaning)


class _NoRedirect(urllib.request.HTTPRedirectHandler):

    def redirect_request(self, *args):
        return None


def request(url, data=None, headers=(), method='POST', timeout=TIMEOUT):
    "Send data as JSON, and return the Answer"
    try:
        question = urllib.request.Request(
            url, data=None if data is None else json.dumps(data).encode(),
            headers={'Content-Type': 'application/json', **dict(headers)},
            method=method)
        opener = urllib.request.build_opener(_NoRedirect())
        with opener.open(question, timeout=timeout) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())
    except urllib.error.URLError as error:
        return Answer(None, reason=_reason(error.reason))
    except (OSError, ValueError, http.client.HTTPException) as error:
        # ValueError is for an invalid address from a server.
        return Answer(None, reason=_reason(error))


def _reason(error):
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            "the certificate is not trusted (%s): clients refuse it for the "
            "bus, without asking. Give the server one that the system trusts, "
            "for this name, with its chain" % error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (
            "TLS fails (%s): does the port speak https?" % (
                error.reason or error))
    if isinstance(error, socket.gaierror):
        return "the name of the host is not known: %s" % error.strerror
    if isinstance(error, TimeoutError):
        return (
            "nothing answers in time: a firewall, or a server that does not "
            "come to it")
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused: nothing listens on that port"
    if isinstance(error, ConnectionError | http.client.RemoteDisconnected):
        return (
            "the connection is closed without an answer: does the port speak "
            "http, or only https?")
    if isinstance(error, http.client.HTTPException):
        return "what answers there does not speak HTTP: %r" % error
    return "it cannot be reached: %s" % error


def own_address(url):
    "The address of this machine on the way to a server, None if unknown"
    parts = urllib.parse.urlsplit(url)
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as connection:
            connection.connect(target)  # which sends nothing
            return connection.getsockname()[0]
    except OSError:
        return None
