"""The laws of the simulation of restarts, and a measured run to compare."""
import json
from pathlib import Path

import pytest

from benches.scaling.million import compute
from benches.scaling.storm import Storm, run

pytestmark = pytest.mark.one_series

RESULTS = Path(__file__).parents[1] / 'benches' / 'results'


@pytest.mark.parametrize('kill', [False, True])
@pytest.mark.parametrize('held', [False, True])
@pytest.mark.parametrize('servers, restarted', [(1, 1), (4, 1), (4, 4)])
def test_no_client_is_lost(servers, restarted, kill, held):
    # The simulation asserts that at each step.
    result = run(Storm(
            20_011, servers, restarted, kill=kill, held=held, backlog=100))
    assert result['seconds'] > 0


def test_same_seed_same_storm():
    storm = Storm(20_000, 3, 2, kill=True, held=False, seed=7)
    assert run(storm) == run(storm)


@pytest.mark.parametrize('options, rate', [
        ({'check_cpu': 1e-3}, 4000),
        ({'check_cpu': 1e-3, 'server_cores': 2}, 2000),
        ({'check_database': 1e-3, 'database_cores': 1.5}, 1500),
        ({'check_cpu': 1e-3, 'background': 1000}, 3000),
        ])
def test_no_more_is_checked_than_there_is_room_for(options, rate):
    result = run(Storm(40_000, 4, 4, **options))
    assert result['checks_most'] <= rate * 1.02
    # It is also not quicker than that, after the first server has drained.
    assert result['seconds'] >= 40_000 / rate


def test_faster_checks_are_never_slower():
    seconds = [
        run(Storm(50_000, 2, 2, check_cpu=cpu))['seconds']
        for cpu in [.3e-3, 1e-3, 3e-3]]
    assert seconds == sorted(seconds)


def test_refused_clients_stay_away_for_longer_each_time():
    result = run(Storm(1000, 1, held=False, start=10))
    # With 1 s and then twice as long each time they come at 1, 3, 7, 15 s.
    assert result['refused'] >= 3 * 1000


def test_need_grows_with_the_clients_and_is_shared_by_the_servers():
    few, many = compute(10_000, 2), compute(20_000, 4)
    assert few['polls of a server'] == many['polls of a server']
    assert many['checks/s at rest'] == 2 * few['checks/s at rest']
    assert many['connections to PostgreSQL'] == 12


@pytest.mark.parametrize('text, options', [
        ("one server restarted", {}),
        ("one server killed", {'kill': True}),
        ("all servers restarted", {'restarted': 2}),
        ])
def test_restart_takes_about_as_long_as_measured(text, options):
    with open(RESULTS / 'scale-10000.json') as file:
        rows = {row['text'].partition(': ')[2]: row['figures']['ours']
            for row in json.load(file)['rows']}
    costs = {
        name: rows["CPU of %s to take a poll in" % what] / 1e6
        for name, what in [
            ('check_cpu', "the servers"), ('check_database', "PostgreSQL"),
            ('client', "the clients")]}
    # Each has its share of the two cores of the machine. The message that is
    # published meanwhile answers all polls, so the drain ends at once.
    share = 2 / sum(costs.values())
    del costs['client']
    storm = Storm(
        10_000, 2, start=1, drain=.5,
        server_cores=share * costs['check_cpu'],
        database_cores=share * costs['check_database'], **costs, **options)
    measured = rows["%s, until all wait" % text]
    assert measured / 2 < run(storm)['seconds'] < measured * 2
