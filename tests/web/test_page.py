"""The page for administrators of a real trytond-bus, in a real browser."""
import base64
import hashlib
import json
import re
from urllib.request import urlopen

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.polls import Polls
from support.server import BusServer, TrytondServer
from trytond_fastbus.commands import stat

pytestmark = pytest.mark.one_series

# Collects faults and layout shifts, and shortens the access to the page
HOOK = """
window.faults = [];
for (const kind of [
    'error', 'unhandledrejection', 'securitypolicyviolation'])
    addEventListener(kind, event => faults.push(
        [kind, event.message, event.reason, event.blockedURI].join(' ')),
        true);
for (const kind of ['error', 'warn'])
    console[kind] = (...args) => faults.push(args.join(' '));
window.shifts = 0;
new PerformanceObserver(list => {
    for (const entry of list.getEntries())
        shifts += entry.value;
}).observe({type: 'layout-shift', buffered: true});
window.tile = title => [...document.querySelectorAll('.tile')].find(
    tile => tile.querySelector('h2').textContent === title);
window.values = title => [...tile(title).querySelectorAll('.value')].map(
    value => value.textContent);
window.note = title => tile(title).querySelector('.note').textContent;
window.curve = title => tile(title).querySelector('path.a').getAttribute('d');
window.cells = () => [...document.querySelectorAll('#rows tr')].map(
    row => [...row.children].map(cell => cell.textContent));
window.state = () => document.getElementById('state').textContent;
"""
# The metrics that replace the server's
SAYS = """
window.said = %s;
window.fetch = () => Promise.resolve(new Response(said));
"""


@pytest.fixture(scope='module')
def servers(postgresql, listening, tmp_path_factory):
    "trytond and trytond-bus"
    directory = tmp_path_factory.mktemp('servers')
    sections = {'database': {'uri': postgresql.uri}}
    with TrytondServer(directory, sections, [listening]) as trytond, \
            BusServer(directory, sections, [listening]) as bus:
        listening_metric = 'listening{database="%s"}' % listening
        wait_until(lambda: bus.metric(listening_metric))
        yield trytond, bus


@pytest.fixture
def url(servers):
    return f'http://127.0.0.1:{servers[1].admin_port}/'


def emulate(page, width=1280, height=800, scheme='light'):
    page.send(
        'Emulation.setDeviceMetricsOverride', width=width, height=height,
        deviceScaleFactor=1, mobile=False)
    page.send('Emulation.setEmulatedMedia', features=[
            {'name': 'prefers-color-scheme', 'value': scheme}])


def test_page_shows_polls_and_messages(
        servers, url, listening, browser):
    trytond, bus = servers
    client = TrytonClient(trytond.url, listening)
    page = browser.open(url, HOOK)
    page.wait("state() === '● serving'")
    channels = [f'client:{number}' for number in range(3)]
    with Polls(bus.port, listening, client._headers, channels) as polls:
        page.wait("values('Polls waiting')[0] === '3'")
        publish(listening, 'client:0', {'n': 0})
        polls.wait(1)
        page.wait("note('Messages published') === '1 in all'")
        page.wait("values('Delivery latency').every("
            "value => / m?s$/.test(value))")
        page.wait("values('Polls waiting')[0] === '2'")
        # A curve of some looks
        page.wait("curve('Polls waiting').split('L').length > 3")

    assert page.evaluate('cells()') == [[
            listening, '● listening', '1', page.evaluate('cells()[0][3]'),
            '0', '0', '0', 'no journal']]
    # From three of ten to two
    assert [point.split(' ')[1] for point in page.evaluate(
            "curve('Polls waiting')").split('L')][-1] == '80.0'
    assert ' 70.0L' in page.evaluate("curve('Polls waiting')")
    label = page.evaluate(
        "tile('Polls waiting').querySelector('.plot svg')"
        ".getAttribute('aria-label')")
    assert label.startswith('Polls waiting of the last ten minutes, from ')
    assert page.evaluate('faults') == []
    assert page.evaluate('shifts') < .01
    # The page has requested only the metrics, from this server.
    assert set(page.evaluate(
            "performance.getEntriesByType('resource').map(({name}) => name)"
            )) == {url + 'metrics'}


def test_policy_lets_the_script_of_the_page_run(url):
    with urlopen(url) as response:
        policy = response.headers['Content-Security-Policy']
        page = response.read().decode()
    script, = re.findall(r'<script>(.*?)</script>', page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest())
    assert f"script-src 'sha256-{digest.decode()}';" in policy


def test_page_follows_the_colours_of_the_system(url, browser):
    page = browser.open(url, HOOK)
    colours = {}
    for scheme in ['light', 'dark']:
        emulate(page, scheme=scheme)
        page.wait("state() === '● serving'")
        colours[scheme] = page.evaluate(
            "[[document.body, 'backgroundColor'], [document.body, 'color'],"
            "[tile('Connections').querySelector('path.a'), 'stroke']].map("
            "([element, name]) => getComputedStyle(element)[name])")
    luminance = {
        scheme: [
            sum(map(int, re.findall(r'\d+', colour)[:3])) for colour in found]
        for scheme, found in colours.items()}
    assert luminance['light'][0] > 600 > 200 > luminance['light'][1]
    assert luminance['dark'][0] < 200 < 600 < luminance['dark'][1]
    assert colours['light'][2] != colours['dark'][2]


def said(draining=0, polls=0, **databases):
    lines = [f'trytond_bus_draining {draining}', '']
    names = ['listening', 'history_bytes', 'history_messages', 'gaps_total',
        'skipped_total', 'evicted_total', 'published_total', 'journal_number']
    for name in ['connections', 'polls_waiting', 'delivered_total',
            'replayed_total', 'session_cache_hits_total']:
        lines.append(f'trytond_bus_{name} {polls}')
    lines.append(f'trytond_bus_session_checks_total{{result="valid"}} {polls}')
    for bound, count in [('0.001', 0), ('0.5', polls), ('+Inf', polls)]:
        lines.append(
            f'trytond_bus_delivery_seconds_bucket{{le="{bound}"}} {count}')
    for database, (listening, number) in databases.items():
        for name in names:
            value = listening if name == 'listening' else number
            lines.append(
                f'trytond_bus_{name}{{database="{database}"}} {value}')
    return '\n'.join(lines) + '\n'


def test_narrow_window_does_not_scroll_sideways(url, browser):
    text = said(polls=8_000_000, **{
            'tryton': (0, 2**53), 'a' * 63: (1, 123_456_789)})
    page = browser.open('about:blank')
    emulate(page, width=360, height=740)
    page.send('Page.addScriptToEvaluateOnNewDocument', source=HOOK)
    page.send(
        'Page.addScriptToEvaluateOnNewDocument',
        source=SAYS % json.dumps(text))
    page.send('Page.navigate', url=url)
    page.wait("values('Polls waiting')[0] === '8,000,000'")
    page.evaluate(f'said = {json.dumps(text.replace("8000000", "9999999"))}')
    page.wait("/ ms$/.test(values('Delivery latency')[1])")

    assert page.evaluate('innerWidth') == 360
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    # No text is cut off at the edge of its tile.
    assert page.evaluate("""
        [...document.querySelectorAll('.value, #rows td, #rows th, .key')]
            .filter(element => {
                const tile = element.closest('section');
                return element.getBoundingClientRect().right
                    > tile.getBoundingClientRect().right;
            }).map(element => element.textContent)""") == []
    # The name of a database has half of the width.
    assert page.evaluate("""
        [...document.querySelectorAll('#rows th')].map(
            name => name.clientWidth)""")[1] > 100
    assert page.evaluate('shifts') < .01


def test_state_is_said_in_words(url, browser):
    markup = '<img src=x onerror=faults.push(1)>\\"\\\\\\n'
    page = browser.open(url, HOOK + SAYS % json.dumps(
            said(**{'b': (1, 1), markup: (0, 2)})))
    page.wait("state() === '▲ not listening to 1 of 2 databases'")
    assert [row[:2] for row in page.evaluate('cells()')] == [
        ['<img src=x onerror=faults.push(1)>"\\\n', '▲ not listening'],
        ['b', '● listening']]
    page.evaluate(f'said = {json.dumps(said(draining=1, b=(1, 1)))}')
    page.wait("state().startsWith('▲ draining')")
    assert len(page.evaluate('cells()')) == 1
    # Another server counts as none.
    page.evaluate("said = 'ok'")
    page.wait("state().startsWith('✕ can\\'t be reached since ')")
    assert page.evaluate('faults') == []


def test_many_databases_are_listed_in_a_bounded_height(
        url, browser, tmp_path):
    values = {f'shop{number}': (1, 0) for number in range(297)}
    values.update(a=(1, 3), b=(0, 0), c=(1, 700))
    text = said(polls=8, **values)
    for width, height in [(1280, 800), (360, 740)]:
        page = browser.open('about:blank')
        emulate(page, width, height)
        for source in [HOOK, SAYS % json.dumps(text)]:
            page.send('Page.addScriptToEvaluateOnNewDocument', source=source)
        page.send('Page.navigate', url=url)
        page.wait("cells().length === 50")
        names = "cells().map(([name]) => name)"
        # In the order of trytond-bus stat
        look = stat.Look(text)
        assert page.evaluate(names) == look.databases[:50]
        assert page.evaluate(names)[:3] == ['b', 'c', 'a']
        count = "document.getElementById('count').textContent"
        assert page.evaluate(count) == '50 of 300, the worst first'
        assert page.evaluate(
            "document.getElementById('totals').textContent") == (
            'In all: 1 not listening, 703 retained, 703 B, 703 gaps, '
            '703 skipped, 703 evicted')
        assert page.evaluate(
            'document.documentElement.scrollHeight') < 2200
        assert page.evaluate(
            'document.documentElement.scrollWidth') <= width

        page.evaluate("""
            document.getElementById('filter').value = 'OP29';
            document.getElementById('filter').dispatchEvent(
                new Event('input'))""")
        assert page.evaluate(names) == ['shop29', *(
                f'shop{number}' for number in range(290, 297))]
        assert page.evaluate(count) == '8 of 300, the worst first'
        # The next update keeps the filter.
        page.evaluate("said = said.replace('waiting 8', 'waiting 9')")
        page.wait("values('Polls waiting')[0] === '9'")
        assert page.evaluate('cells().length') == 8
        assert page.evaluate('faults') == []


def test_page_goes_on_once_the_server_is_back(
        servers, url, browser):
    _, bus = servers
    page = browser.open(url, HOOK)
    page.wait("state() === '● serving'")
    page.wait("curve('Connections')")
    bus.kill()
    page.wait("state().startsWith('✕ can\\'t be reached since ')")
    bus.start()
    page.wait("state() === '● serving'")
    # The time without it is a gap between two curves.
    page.wait("curve('Connections').split('M').length === 3")
