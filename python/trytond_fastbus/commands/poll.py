"""The poll of a check: a message has to arrive by it."""
import threading
import time
import urllib.parse

from trytond.transaction import Transaction

from ..server import bus_class
from .connection import in_a_line
from .here import session_address
from .web import Answer, own_address, request

# Seconds in which a message has to arrive, and between two of them: the
# server may only begin to listen with the poll
POLL_TIMEOUT, PUBLISH_EVERY = 15, .5

PERMANENT_REDIRECT = 308


def poll(report, session, connection):
    "See a message arrive by a poll that waits"
    thing, url = 'poll', session.bus_url
    if not connection:
        report.failed(
            thing, "nothing can be published without the database")
        return
    publisher = _Publisher(session)
    with publisher:
        answer = _ask(session, url)
        if answer.status == PERMANENT_REDIRECT:
            # Where clients up to 7.6 are sent
            url = urllib.parse.urljoin(url, answer.headers['Location'])
            answer = _ask(session, url)
    if publisher.error:
        report.failed(
            thing, "no message can be published: %s" % publisher.error)
    elif answer.status == 401:
        report.failed(thing, "%s: %s" % (
                url, _why_refused(session, url, connection)))
    elif answer.status != 200:
        report.failed(thing, "%s: %s" % (url, answer.words))
    else:
        _tell_latency(report, url, publisher, answer)


def _ask(session, url):
    "Poll until there is a message, or the time is over"
    end = time.monotonic() + POLL_TIMEOUT
    question = {'last_message': None, 'channels': [session.channel]}
    while True:
        answer = request(url, question, session.headers, timeout=max(
                end - time.monotonic(), .1))
        if answer.status is None and time.monotonic() > end:
            # It waits, as it has to.
            return Answer(200)
        content = answer.json
        if (answer.status != 200 or time.monotonic() > end
                or not isinstance(content, dict) or content.get('message')):
            return answer
        time.sleep(.1)


def _tell_latency(report, url, publisher, answer):
    content = answer.json
    message = content.get('message') if isinstance(content, dict) else None
    try:
        seconds = publisher.ended - publisher.times[message['number']]
    except (TypeError, KeyError, IndexError):
        if answer.body and not isinstance(content, dict):
            words = "200, but what answers there is not the bus"
        else:
            words = (
                "a poll waits, but no message arrives within %d seconds: "
                "does the server use another database or another role's "
                "schema? Its log says whether it listens" % POLL_TIMEOUT)
        report.failed('poll', "%s: %s" % (url, words))
    else:
        report.ok(
            'poll', "a message arrives by %s, %.3f seconds after it was "
            "published" % (url, seconds), seconds=round(seconds, 6))


class _Publisher:
    "Publishes a message to a session's channel again and again"

    def __init__(self, session):
        self.times = []
        self.error = self.ended = None
        self._session = session
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self.ended = time.monotonic()
        self._stop.set()
        self._thread.join()

    def _run(self):
        session = self._session
        try:
            bus = bus_class()
            while not self._stop.wait(PUBLISH_EVERY):
                message = {'type': 'check', 'number': len(self.times)}
                self.times.append(time.monotonic())
                with Transaction().start(session.database, 0):
                    bus.publish(session.channel, message)
        except Exception as error:
            self.error = in_a_line(error)


def _why_refused(session, url, connection):
    "Why a session that was just opened is none for the bus"
    opened = session_address(connection, session.token)
    own = own_address(session.url)
    if not opened:
        return (
            "401, though the login was good: does the proxy pass on the "
            "header Authorization, and does the server there use the same "
            "database?")
    if opened == own:
        seen = (
            "that is the address of this machine, so trytond sees it rightly, "
            "and the server at the poll's end another one: look at [bus] "
            "num_proxies (else [web] num_proxies) of trytond-bus")
    else:
        seen = (
            "this machine has %s, so there are proxies between, which trytond "
            "and the server at the poll's end count differently: look at "
            "[web] num_proxies of trytond, [bus] num_proxies of trytond-bus"
            % (own or "another one"))
    return (
        "401, though the login was good: from 7.8 on a session is valid for "
        "one address only. It was opened from %s (table ir_session); %s, and "
        "at X-Forwarded-For in the proxy's section for /<database>/bus, which "
        "has to pass on Authorization as well"
        % (opened, seen))
