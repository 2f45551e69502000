"""The check that a message arrives by a poll."""
import ipaddress
import threading
import time
import urllib.parse

from trytond.transaction import Transaction

from .. import settings
from ..logs import in_a_line
from ..server import bus_class
from .database import session_address
from .web import Answer, own_address, request

# Time limit in seconds for a message, and seconds between two messages,
# because the server may begin to listen only with the poll
POLL_TIMEOUT, PUBLISH_EVERY = 15, .5

# Seconds after [bus] long_polling_timeout in which a poll has to end
PATIENCE = 15

PERMANENT_REDIRECT = 308


def poll(report, session, connection, is_patient=False):
    "Check that a message arrives by a waiting poll"
    thing, url = 'poll', session.bus_url
    if not connection:
        report.failed(
            thing, "no message can be published without the database")
        return
    poller = _Poller(session, url)
    with _Publisher(session) as publisher:
        answer = poller.wait_for(publisher.times)
        if answer.status == PERMANENT_REDIRECT:
            # The URL to which clients up to 7.6 are redirected
            url = urllib.parse.urljoin(url, answer.headers['Location'])
            poller = _Poller(session, url)
            answer = poller.wait_for(publisher.times)
    if publisher.error:
        report.failed(
            thing, "no message can be published: %s" % publisher.error)
    elif answer.status == 401:
        report.failed(thing, "%s: %s" % (
                url, _why_refused(session, url, connection)))
    elif answer.status != 200:
        report.failed(thing, "%s: %s" % (url, answer.words))
    elif _tell_latency(report, url, publisher, answer):
        _tell_proxies(report, url)
        if is_patient:
            _tell_patience(report, url, poller)


class _Poller:
    "Polls as a client does, and keeps the last message"

    def __init__(self, session, url):
        self._session = session
        self._url = url
        self._last = None

    def ask(self, timeout):
        "Poll once, and return the Answer"
        answer = request(self._url, {
                'last_message': self._last,
                'channels': [self._session.channel],
                }, self._session.headers, timeout=timeout)
        message = _message(answer)
        self._last = message.get('message_id', self._last)
        return answer

    def wait_for(self, ids):
        """Poll until a message has one of the ids, or the time is over. The
        user may have other retained messages"""
        end = time.monotonic() + POLL_TIMEOUT
        while True:
            answer = self.ask(max(end - time.monotonic(), .1))
            if answer.status is None and time.monotonic() > end:
                # The poll waits, as it should.
                return Answer(200)
            message = _message(answer)
            if (answer.status != 200 or time.monotonic() > end
                    or not isinstance(answer.json, dict)
                    or message.get('message_id') in ids):
                return answer
            if not message:
                time.sleep(.1)


def _message(answer):
    "The message of an answer, empty if there is none"
    content = answer.json
    message = content.get('message') if isinstance(content, dict) else None
    return message if isinstance(message, dict) else {}


def _tell_latency(report, url, publisher, answer):
    "Report the latency of the message, and return whether it arrived"
    published = publisher.times.get(_message(answer).get('message_id'))
    if published is None:
        if answer.body and not isinstance(answer.json, dict):
            words = "200, but the server there is not the bus"
        else:
            words = (
                "a poll waits, but no message arrives within %d seconds: "
                "check in the server's log that it listens, and that it uses "
                "the same database and schema" % POLL_TIMEOUT)
        report.failed('poll', "%s: %s" % (url, words))
        return False
    seconds = publisher.ended - published
    report.ok(
        'poll', "a message arrives by %s, %.3f seconds after it was "
        "published" % (url, seconds), seconds=round(seconds, 6))
    return True


def _tell_proxies(report, url):
    "Warn if a session's address proves nothing"
    own = own_address(url)
    if settings.MODULE and own and ipaddress.ip_address(own).is_loopback:
        report.warning(
            'num_proxies', "it is not proved, because over the loopback each "
            "number of proxies gives the same address: run the check on "
            "another machine, or with a --url whose host is not the loopback")


def _tell_patience(report, url, poller):
    "Check that no proxy ends a poll before the server does"
    thing, limit = 'patience', settings.long_polling_timeout()
    end = time.monotonic() + 2 * limit + PATIENCE
    while True:
        started = time.monotonic()
        answer = poller.ask(limit + PATIENCE)
        seconds = time.monotonic() - started
        if not _message(answer) or time.monotonic() > end:
            break
    if answer.status != 200 or _message(answer):
        report.failed(
            thing, "%s: a poll without a message ended after %d seconds: %s. "
            "Set the timeout of the proxy (proxy_read_timeout of nginx) above "
            "[bus] long_polling_timeout = %d" % (
                url, seconds, answer.words, limit), seconds=round(seconds))
    elif seconds < limit - 1:
        report.warning(
            thing, "%s answers a poll without a message after %d seconds, but "
            "[bus] long_polling_timeout is %d here: check whether the server "
            "has another configuration, was restarted, or is full (max_polls)"
            % (url, seconds, limit), seconds=round(seconds))
    else:
        report.ok(
            thing, "a poll waits for %d seconds ([bus] long_polling_timeout)"
            % seconds, seconds=round(seconds))


class _Publisher:
    """Publishes messages to a session's channel periodically; times has the
    time of each message, by its id"""

    def __init__(self, session):
        self.times = {}
        self.error = self.ended = None
        self._session = session
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.ended = time.monotonic()
        self._stop.set()
        self._thread.join()

    def _run(self):
        session = self._session
        try:
            bus = bus_class()
            while not self._stop.wait(PUBLISH_EVERY):
                message, started = {'type': 'check'}, time.monotonic()
                with Transaction().start(session.database, 0):
                    bus.publish(session.channel, message)
                    self.times[message['message_id']] = started
        except Exception as error:
            self.error = in_a_line(error)


def _why_refused(session, url, connection):
    "The reason why the bus refuses a session that was just opened"
    opened = session_address(connection, session.token)
    own = own_address(session.url)
    if not opened:
        return (
            "401, although the login succeeded: check that the proxy passes "
            "on the header Authorization, and that the server there uses the "
            "same database")
    if opened == own:
        seen = (
            "that is the address of this machine, so the bus sees another "
            "one: check [bus] num_proxies (else [web] num_proxies) of "
            "trytond-bus")
    else:
        seen = (
            "this machine has %s, so trytond and the bus count the proxies "
            "differently: check [web] num_proxies of trytond, and [bus] "
            "num_proxies of trytond-bus" % (own or "another one"))
    return (
        "401, although the login succeeded: from 7.8 on a session is valid "
        "for one address only. It was opened from %s (table ir_session); %s, "
        "and that the proxy sets X-Forwarded-For and passes on Authorization "
        "for /<database>/bus"
        % (opened, seen))
