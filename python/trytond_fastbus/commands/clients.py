"""What a check can see of a server without a session."""
import urllib.parse

from .web import request


def address(host, database):
    "The address of the bus on a host, as clients make it"
    return urllib.parse.urljoin(host, '%s/bus' % urllib.parse.quote(database))


def answers(report, url):
    "Whether the bus answers there: without a session it refuses the poll"
    answer = request(url, {'last_message': None, 'channels': []})
    if answer.status == 401:
        report.ok(
            'POST', "%s refuses a poll without a session, as it has to" % url)
        return True
    report.failed('POST', "%s: %s" % (url, answer.words))
    return False


def origin(report, url, origin):
    "Whether a browser lets a page of this origin poll"
    thing, origin = 'CORS', origin.rstrip('/')
    parts = urllib.parse.urlsplit(url)
    if origin == '%s://%s' % (parts.scheme, parts.netloc):
        answer = request(url, {'channels': []}, {'Origin': origin})
        if answer.status == 403:
            report.failed(
                thing, "%s refuses its own origin %s: the proxy has to pass "
                "on Host" % (url, origin))
        else:
            report.ok(
                thing, "%s is the bus's own origin, a browser asks for no "
                "more" % origin)
        return
    preflight = request(url, None, {
            'Origin': origin,
            'Access-Control-Request-Method': 'POST',
            'Access-Control-Request-Headers': 'authorization,content-type',
            }, method='OPTIONS')
    answer = request(url, {'channels': []}, {'Origin': origin})
    refusal = (
        "add it to [web] cors in the configuration of the server there")
    if 403 in {preflight.status, answer.status}:
        report.failed(thing, "%s may not poll (403): %s" % (origin, refusal))
        return
    if preflight.status not in {200, 204}:
        report.failed(
            thing, "the preflight (OPTIONS) at %s: %s" % (
                url, preflight.words))
        return
    wrong = [
        "%s of the %s is %s, not %s" % (name, what, headers.get(name), value)
        for what, headers in [
            ("preflight", preflight.headers), ("answer", answer.headers)]
        for name, value in [
            ('Access-Control-Allow-Origin', origin),
            ('Access-Control-Allow-Credentials', 'true')]
        if headers.get(name) != value]
    for name, value in [('Methods', 'post'), ('Headers', 'content-type')]:
        name = 'Access-Control-Allow-' + name
        allowed = preflight.headers.get(name) or ''
        if value not in map(str.strip, allowed.lower().split(',')):
            wrong.append("%s of the preflight lacks %s" % (name, value))
    if wrong:
        report.failed(
            thing, "a browser refuses what %s answers to %s: %s. Does "
            "trytond-bus answer there, and does the proxy leave its headers "
            "alone? Otherwise %s" % (url, origin, '; '.join(wrong), refusal))
    else:
        report.ok(thing, "%s may poll, with its cookie" % origin)
