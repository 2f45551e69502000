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
    200: "the server there is not the bus, because it accepts a request "
    "without a session: check where the proxy sends /<database>/bus",
    400: "the request was changed on its way: check the proxy",
    403: "the request is forbidden: check the rules of the proxy, and that "
    "the bus answers there",
    404: "not found: check where the proxy sends /<database>/bus, and that "
    "the database exists there",
    405: "POST is not allowed, so the server there is not the bus: check "
    "where the proxy sends /<database>/bus",
    411: "the request has lost its Content-Length: check the proxy",
    413: "the request is too large for the proxy: raise its limit "
    "(client_max_body_size of nginx)",
    429: "too many requests: raise the limit of the proxy, or [bus] "
    "session_polls",
    500: "the server has failed: read its log",
    501: "[bus] allow_subscribe is off in the configuration of the server "
    "there: set it to True. Clients poll again after their next login",
    502: "the proxy reaches no server: start trytond-bus, or let the proxy "
    "connect to the address of [bus] listen",
    503: "the proxy or the server is out of service: check that trytond-bus "
    "runs and is not overloaded",
    504: "the timeout of the proxy is too short: set it (proxy_read_timeout "
    "of nginx) above [bus] long_polling_timeout",
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
                "it redirects to '%s', and not every client follows: give "
                "clients that address" % self.headers.get('Location', ''))
        else:
            meaning = STATUSES.get(
                self.status,
                "a status that the bus never sends: check the proxy")
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
            "the certificate is not trusted (%s), and clients refuse it for "
            "the bus without asking: give the server a certificate for this "
            "name, with its chain, that the system trusts"
            % error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (
            "TLS fails (%s): check that the port speaks https" % (
                error.reason or error))
    if isinstance(error, socket.gaierror):
        return "the name of the host is unknown (%s): check the URL" % (
            error.strerror)
    if isinstance(error, TimeoutError):
        return (
            "no answer in time: check the firewall, and that the server is "
            "not overloaded")
    if isinstance(error, ConnectionRefusedError):
        return (
            "the connection is refused: check that the server runs and "
            "listens on that port")
    if isinstance(error, ConnectionError | http.client.RemoteDisconnected):
        return (
            "the connection is closed without an answer: check whether the "
            "port speaks http or https")
    if isinstance(error, http.client.HTTPException):
        return "the server there does not speak HTTP: %r" % error
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
