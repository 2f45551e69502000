"""The metrics that Prometheus reads from a bus server, and from trytond."""
import json
import re
import shutil
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.modes import listened
from support.nginx import make_certificate
from support.server import ROOT, BusServer, TrytondServer

EXAMPLES = ROOT / 'examples' / 'monitoring'

pytestmark = pytest.mark.one_series

promtool = pytest.mark.skipif(
    not shutil.which('promtool'), reason="install prometheus, for promtool")


@pytest.fixture
def bus_server(postgresql, listening, tmp_path):
    certificate, key = make_certificate(tmp_path)
    with BusServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {
                    'class': None, 'select_timeout': 1, 'max_polls': 7,
                    'long_polling_timeout': 1, 'cache_size': 1_000_000},
                'ssl': {'certificate': certificate, 'privatekey': key},
                }, [listening]) as server:
        server.listened(listening)
        yield server


@pytest.fixture
def trytond(postgresql, listening, tmp_path):
    "A trytond that answers polls and serves its metrics"
    with TrytondServer(tmp_path, {
                'database': {'uri': postgresql.uri},
                'bus': {'select_timeout': 1, 'long_polling_timeout': 60},
                'wsgi middleware': {
                    'hangup': 'trytond_fastbus.hangup.Middleware',
                    'metrics': 'trytond_fastbus.metrics.Middleware'},
                }, [listening]) as server:
        yield server


def of_trytond(server):
    url = server.url + '/trytond-bus/metrics'
    with urllib.request.urlopen(url, timeout=60) as response:
        assert response.headers['Content-Type'].startswith('text/plain')
        return response.read().decode()


def check(text):
    process = subprocess.run(
        ['promtool', 'check', 'metrics'], input=text, capture_output=True,
        text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert not process.stderr, process.stderr


def names(text):
    return set(re.findall('^# TYPE ([a-z0-9_]+) ', text, re.MULTILINE))


@promtool
def test_promtool_finds_nothing_to_say(bus_server, trytond, listening):
    listened(TrytonClient(trytond.url, listening, timeout=60), listening)
    server, of_class = bus_server.admin('/metrics')[1], of_trytond(trytond)
    check(server)
    check(of_class)
    assert names(of_class) < names(server)
    assert {
        'trytond_bus_build_info', 'trytond_bus_polls_ended_total',
        'trytond_bus_published_total', 'process_resident_memory_bytes',
        } < names(of_class)


def test_limits_and_the_end_of_the_certificate_are_told(bus_server):
    metric = bus_server.metric
    assert metric('polls_waiting_limit') == 7
    assert metric('connections_limit') == 25_000
    assert metric('history_limit_bytes') == 1_000_000
    assert metric('long_polling_timeout_seconds') == 1
    text = bus_server.admin('/metrics')[1]
    assert 'trytond_bus_build_info{version="' in text
    assert re.search('^process_cpu_seconds_total ', text, re.MULTILINE)
    # The certificate is valid for 30 days, and the kernel rounds the start.
    started = re.search('^process_start_time_seconds (.*)$', text, re.M)[1]
    end = metric('certificate_expiry_timestamp_seconds')
    assert abs(end - float(started) - 30 * 86400) < 3600


def test_end_of_a_poll_is_told_with_its_reason(trytond, listening):
    client = TrytonClient(trytond.url, listening, timeout=60)
    listened(client, listening)

    def ended(reason):
        text = f'polls_ended_total{{reason="{reason}"}} '
        value, = (
            line for line in of_trytond(trytond).splitlines()
            if line.startswith('trytond_bus_' + text))
        return int(value.rpartition(' ')[2])

    before = ended('message'), ended('client_gone')
    with ThreadPoolExecutor() as executor:
        poll = executor.submit(client.poll)
        wait_until(
            lambda: 'trytond_bus_polls_waiting 1' in of_trytond(trytond))
        publish(listening, client.channel, {'type': 'x'})
        poll.result()
    assert ended('message') == before[0] + 1

    impatient = TrytonClient(trytond.url, listening)
    impatient.timeout = 1
    with pytest.raises(OSError):
        impatient.poll()
    wait_until(lambda: ended('client_gone') == before[1] + 1)


@promtool
@pytest.mark.parametrize('command', [
        ['check', 'config', 'prometheus.yml'],
        ['check', 'rules', 'trytond-bus-alerts.yml'],
        ['test', 'rules', 'trytond-bus-alerts-test.yml'],
        ], ids=' '.join)
def test_alerts_of_the_examples_fire_when_they_should(command):
    process = subprocess.run(
        ['promtool', *command], cwd=EXAMPLES, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def expressions():
    dashboard = json.loads((EXAMPLES / 'grafana-dashboard.json').read_text())
    return [
        target['expr'] for panel in dashboard['panels']
        for target in panel['targets']]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(bus_server):
    found = names(bus_server.admin('/metrics')[1])
    for text in [
            *expressions(),
            (EXAMPLES / 'trytond-bus-alerts.yml').read_text()]:
        for name in re.findall(r'\b(?:trytond_bus|process)_\w+', text):
            assert {name, re.sub('_bucket$', '', name)} & found, name


@promtool
def test_dashboard_has_good_queries_and_no_panel_over_another(tmp_path):
    rules = tmp_path / 'rules.yml'
    rules.write_text(json.dumps({'groups': [{'name': 'all', 'rules': [
                    {'record': f'query{number}', 'expr': (
                            expression.replace('$__rate_interval', '1m'))}
                    for number, expression in enumerate(expressions())]}]}))
    process = subprocess.run(
        ['promtool', 'check', 'rules', rules], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr

    dashboard = json.loads((EXAMPLES / 'grafana-dashboard.json').read_text())
    panels = dashboard['panels']
    assert len({panel['id'] for panel in panels}) == len(panels)
    taken = [
        (x, y) for place in (panel['gridPos'] for panel in panels)
        for x in range(place['x'], place['x'] + place['w'])
        for y in range(place['y'], place['y'] + place['h'])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
