"""The checks of a server that need no session."""
import urllib.parse

from trytond import __version__

from .web import request

# Whether the web client sends its session in a cookie, instead of
# Authorization
HAS_COOKIE = int(__version__.split('.')[0]) >= 8


def address(host, database):
    "The address of the bus on a host, as clients make it"
    return urllib.parse.urljoin(host, '%s/bus' % urllib.parse.quote(database))


def answers(report, url):
    """Check that the bus answers there, by a poll without a session, which it
    refuses"""
    answer = request(url, {'last_message': None, 'channels': []})
    if answer.status == 401:
        report.ok(
            'POST', "%s refuses a poll without a session, as it should" % url)
        return True
    report.failed('POST', "%s: %s" % (url, answer.words))
    return False


def origin(report, url, origin):
    "Check that a browser lets a page of this origin poll"
    thing, origin = 'CORS', origin.rstrip('/')
    parts = urllib.parse.urlsplit(url)
    if origin == '%s://%s' % (parts.scheme, parts.netloc):
        answer = request(url, {'channels': []}, {'Origin': origin})
        if answer.status == 403:
            report.failed(
                thing, "%s refuses its own origin %s: let the proxy pass on "
                "Host" % (url, origin))
        else:
            report.ok(
                thing, "%s is the bus's own origin, so a browser needs no "
                "CORS" % origin)
        return
    asked = {'content-type'}
    if not HAS_COOKIE:
        asked.add('authorization')
    preflight = request(url, None, {
            'Origin': origin,
            'Access-Control-Request-Method': 'POST',
            'Access-Control-Request-Headers': ','.join(sorted(asked)),
            }, method='OPTIONS')
    answer = request(url, {'channels': []}, {'Origin': origin})
    mend = "add it to [web] cors in the configuration of the server there"
    # trytond itself answers an unknown origin with 500.
    if {403, 500} & {preflight.status, answer.status}:
        report.failed(thing, "%s may not poll (%s): %s" % (
                origin, preflight.status, mend))
        return
    if preflight.status not in {200, 204}:
        report.failed(thing, "the preflight (OPTIONS) at %s: %s" % (
                url, preflight.words))
        return
    wrong = _wrong(preflight, origin)
    for name, needed in [('Methods', {'post'}), ('Headers', asked)]:
        name = 'Access-Control-Allow-' + name
        allowed = (preflight.headers.get(name) or '').lower().split(',')
        if lacking := needed - set(map(str.strip, allowed)):
            wrong.append("%s lacks %s" % (name, ', '.join(sorted(lacking))))
    if wrong or HAS_COOKIE and _wrong(answer, origin):
        report.failed(
            thing, "a browser refuses the answer of %s to %s: %s. Check that "
            "trytond-bus answers there, and that the proxy leaves its headers "
            "alone; otherwise %s" % (
                url, origin, '; '.join(wrong or _wrong(answer, origin)),
                mend))
    elif _wrong(answer, origin):
        report.warning(
            thing, "%s may poll, but its browser hides an error from it: %s "
            "in the answer 401 (stock trytond leaves it out)" % (
                origin, '; '.join(_wrong(answer, origin))))
    else:
        report.ok(thing, "%s may poll, with its session" % origin)


def _wrong(answer, origin):
    "The errors in the headers that each answer to a browser needs"
    needed = {'Access-Control-Allow-Origin': origin}
    if HAS_COOKIE:
        needed['Access-Control-Allow-Credentials'] = 'true'
    return [
        "%s is %s, not %s" % (
            name, answer.headers.get(name) or "missing", value)
        for name, value in needed.items() if answer.headers.get(name) != value]
