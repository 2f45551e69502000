"""On SQLite messages are delivered after the commit, without the journal
within the process."""
import pytest
from support.server import run_python

PREAMBLE = '''
import os, sys, threading
import trytond_fastbus
from support import wait_until
from support.bus import Polls, publish, received, statistics
from trytond.bus import Bus
from trytond.transaction import Transaction

database, = sys.argv[1:]
empty = {'message': None, 'channel': None}

def texts(*channels):
    return [m['type'] for m in received(database, *channels or ['c'])]

def send(type, channel='c'):
    Bus.publish(channel, {'type': type})

assert Bus.subscribe(database, ['c']) == empty
'''

CASES = {
    'after the commit': '''
with Transaction().start(database, 0) as transaction:
    send('a')
    assert Bus.subscribe(database, ['c']) == empty
    transaction.commit()
    assert Bus.subscribe(database, ['c'])['message']['type'] == 'a'
assert texts() == ['a']
''',
    'not after a rollback': '''
with Transaction().start(database, 0) as transaction:
    send('lost')
    transaction.rollback()
    send('a')
try:
    with Transaction().start(database, 0):
        send('lost')
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert texts() == ['a']
''',
    'once for two commits': '''
with Transaction().start(database, 0) as transaction:
    send('a')
    transaction.commit()
    send('b')
    transaction.commit()
    transaction.commit()
    send('lost')
    transaction.rollback()
assert texts() == ['a', 'b']
''',
    'at once in autocommit': '''
with Transaction().start(database, 0, autocommit=True):
    send('a')
    assert Bus.subscribe(database, ['c'])['message']['type'] == 'a'
assert texts() == ['a']
''',
    'in the order in which nested transactions finish': '''
with Transaction().start(database, 0) as outer:
    send('outer')
    with outer.new_transaction():
        send('inner')
    with outer.new_transaction() as lost:
        send('lost')
        lost.rollback()
assert texts() == ['inner', 'outer']
''',
    'of any size': '''
with Transaction().start(database, 0):
    Bus.publish('c', {'type': 'large', 'text': 'x' * 1_000_000})
    try:
        Bus.publish('c', {'type': 'larger', 'text': 'x' * 2_000_000})
        assert False
    except ValueError:
        pass
assert texts() == ['large']
''',
    'to threads that wait': '''
with Polls(database, ['c', 'd'], 20) as polls:
    wait_until(lambda: statistics(database)['waiting'] == 20, 60)
    id_, = publish(database, 'd', {'type': 'a'})
assert {r['message']['message_id'] for r in polls.results} == {id_}
''',
    'not where nobody subscribes': '''
from support.bus import configured
with configured('database', timeout=1):
    Bus.subscribe(database, ['c'])
    bus = Bus._queues[os.getpid(), database]['bus']
    wait_until(lambda: bus.is_idle(1))
    publish(database, 'c', {'type': 'a'})
assert database not in trytond_fastbus.statistics()
assert Bus.subscribe(database, ['c']) == empty
''',
    }


# With the journal an INSERT locks other writers out until its transaction
# ends, and later polls get the message.
NOT_WITH_JOURNAL = {
    'in the order in which nested transactions finish',
    'not where nobody subscribes',
    }


@pytest.mark.parametrize('journal', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_message_is_delivered(case, journal, sqlite_database):
    if journal and case in NOT_WITH_JOURNAL:
        pytest.skip("holds without the journal only")
    process = run_python(PREAMBLE + CASES[case], {
            'database': {'uri': 'sqlite://', 'path': sqlite_database.parent},
            'bus': {'long_polling_timeout': 1, 'journal': journal},
            }, 'tryton', timeout=600)
    assert (process.returncode, process.stderr) == (0, '')
