"""Each rule of the checker reports its violations, and nothing else."""
import copy

import pytest

from faults.check import check

pytestmark = pytest.mark.one_series


def unit(id_, *tags, begun, returned=None, outcome='committed', ledger=True):
    "The events of a unit with messages of the channel c"
    yield {'event': 'begin', 'unit': id_, 'ledger': ledger}
    for tag in tags:
        yield {
            'event': 'publish', 'unit': id_, 'tag': tag, 'size': 1,
            'channel': 'd' if tag.startswith('d') else 'c'}
    if begun is not None:
        yield {'event': 'commit', 'unit': id_, 'time': begun}
    if outcome:
        yield {'event': outcome, 'unit': id_, 'time': returned}


def client(id_, *tags, channels=('c', 'd'), started=0):
    "The events of a client that receives these messages"
    yield {
        'event': 'start', 'client': id_, 'channels': channels,
        'time': started}
    for tag in tags:
        yield {
            'event': 'received', 'client': id_, 'tag': tag, 'size': 1,
            'channel': 'd' if tag.startswith('d') else 'c'}


PUBLISHED = [
    *unit('early', 'e', begun=.5, returned=.6),
    # These two overlap
    *unit('one', 'a1', 'd1', 'a2', 'a3', begun=1, returned=3),
    *unit('two', 'b1', 'b2', begun=2, returned=4),
    *unit('gone', 'x', begun=None, outcome='rolled back'),
    *unit('killed', 'y', begun=None, outcome=None),
    *unit('lost', 'z', begun=4.1, outcome='unknown'),
    *unit('kept', 'k', begun=5, outcome='unknown'),
    *unit('ended', 'f', begun=5, outcome=None),
    *unit('auto', 'g', begun=6, returned=7, ledger=False),
    *unit('open', 'h', begun=8, outcome='unknown', ledger=False),
    *unit('closed', 'i', begun=9, outcome=None, ledger=False),
    {'event': 'undo', 'unit': 'one', 'tags': ['a2']},
    ]
LEDGER = {'early', 'one', 'two', 'kept', 'ended'}
GOOD = ['a1', 'd1', 'a3', 'b1', 'b2', 'k', 'f', 'g', 'h']


def run(*clients, published=PUBLISHED, ledger=LEDGER):
    return check(
        copy.deepcopy(published),
        [event for events in clients for event in events], ledger)


def test_good_logs_are_silent():
    assert run(
        client('A', 'e', *GOOD),
        client('B', *GOOD, started=.5),
        client('C', *(tag for tag in GOOD if tag != 'd1'), channels=['c'],
            started=.7),
        client('D', 'd1', channels=['d']),
        client('E', *GOOD[4:], started=1.5, channels=['c'])) == [
            "Client E did not receive the message b1 of c, whose transaction "
            "was committed."]


CASES = {
    'did not receive the message a1 of c': [t for t in GOOD if t != 'a1'],
    'did not receive the message k of c': [t for t in GOOD if t != 'k'],
    'did not receive the message g of c': [t for t in GOOD if t != 'g'],
    'did not receive the message h of c': GOOD[:-1],
    'the message x, whose transaction was rolled back': [*GOOD, 'x'],
    'the message y, whose transaction was rolled back': [*GOOD, 'y'],
    'the message z, whose transaction was rolled back': [*GOOD, 'z'],
    'the message a2, whose savepoint was rolled back': [*GOOD, 'a2'],
    'the message n, which nobody has published': [*GOOD, 'n'],
    'received the message b1 2 times': [*GOOD, 'b1'],
    }


@pytest.mark.parametrize('violation', CASES)
def test_one_client_is_reported(violation):
    assert_one(
        run(client('A', *CASES[violation], started=.7),
            client('B', *GOOD, started=.7)),
        'Client A ', violation)


def test_order_of_publish_is_reported():
    order = ['d1', 'a1', *GOOD[2:]]
    assert_one(
        run(client('A', *order, started=.7)),
        'a1 after d1, which was published later in the transaction')


def test_order_of_commits_is_reported():
    order = [*GOOD[:3], 'k', 'b1', 'b2', *GOOD[6:]]
    violations = run(client('A', *order, started=.7))
    assert len(violations) == 2
    assert 'b1 after k, whose commit was begun once' in violations[0]


def test_order_on_which_clients_differ_is_reported():
    order = ['b1', 'b2', *GOOD[:3], *GOOD[5:]]
    assert run(client('A', *order, started=.7)) == []
    assert_one(
        run(client('A', *order, started=.7),
            client('B', *GOOD, started=.7)),
        'Client A received the message b2 before a1, client B after it')


def test_channel_that_is_not_asked_for_is_reported():
    assert_one(
        run(client('A', *GOOD, channels=['c'], started=.7)),
        'd1 of the channel d, which it does not ask for')


def test_message_that_was_cut_is_reported():
    events = list(client('A', *GOOD, started=.7))
    events[3]['size'] = 0
    assert_one(
        run(events), 'a3 as one of c with 0 characters, not of c with 1')


def test_content_of_the_database_decides():
    silent = [tag for tag in GOOD if tag[0] not in 'b']
    violations = run(
        client('A', *silent, started=.7), ledger=LEDGER - {'two'})
    assert violations == [
        "The transaction two was committed and is not in the database."]
    violations = run(
        client('A', *GOOD, started=.7), published=[
            *PUBLISHED,
            {'event': 'rolled back', 'unit': 'two', 'time': None}])
    assert violations == [
        "The transaction two was rolled back and is in the database."]


def assert_one(violations, *parts):
    assert len(violations) == 1, violations
    assert all(part in violations[0] for part in parts), violations
