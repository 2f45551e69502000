"""Under gevent a wait takes a greenlet and no thread, and the hub keeps
running. However a wait ends, no message is lost and nothing is left behind."""
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import wait_until
from support.bus import publish
from support.client import TrytonClient
from support.insight import look
from support.server import TrytondServer, run_python

pytest.importorskip('gevent', exc_type=ImportError)

PREAMBLE = '''
from gevent import monkey
monkey.patch_all()
import os, sys, threading, time
import gevent
from trytond_fastbus import Bus, queues, settings
from support import wait_until
from support.bus import Polls, listen, payload, publish, statistics
from support.child import fork, join, waiting, works

database, = sys.argv[1:]
polling_timeout = 300
settings.long_polling_timeout = lambda: polling_timeout

def deliver(channel, id_):
    queues.deliver(Bus, database, [payload(channel, {'message_id': id_})])
'''


def run(source, sections, database):
    process = run_python(PREAMBLE + source, sections, database, timeout=600)
    assert (process.returncode, process.stderr) == (0, '')


@pytest.fixture
def sections(postgresql):
    return {'database': {'uri': postgresql.uri}, 'bus': {'select_timeout': 1}}


def test_thousand_greenlets_wait_and_wake_without_a_stall(sections, database):
    run('''
gaps = []

def tick():
    last = time.monotonic()
    while True:
        gevent.sleep(.005)
        last, before = time.monotonic(), last
        gaps.append(last - before)

listen(database)
threads = len(os.listdir('/proc/self/task'))
ticking = gevent.spawn(tick)
with Polls(database, ['channel'], 1000) as polls:
    waiting(database, 1000)
    assert len(os.listdir('/proc/self/task')) <= threads + 2
    id_, = publish(database, 'channel', {'type': 'x'})
assert {r['message']['message_id'] for r in polls.results} == {id_}
assert len(polls.results) == 1000
# The workers that wake, and gevent's for names of hosts
assert len(os.listdir('/proc/self/task')) <= threads + 16
ticking.kill()
# A stall would last as long as the polls.
assert max(gaps) < 10, max(gaps)
''', sections, database)


ENDS = {
    'timeout': '''
with gevent.Timeout(.01, False):
    Bus.subscribe(database, ['ended'])
    assert False
''',
    'kill': '''
greenlets = [gevent.spawn(Bus.subscribe, database, ['ended'])
    for _ in range(20)]
waiting(database, 20)
gevent.killall(greenlets)
''',
    'kill after wake-up': '''
greenlets = [gevent.spawn(Bus.subscribe, database, ['ended'])
    for _ in range(20)]
waiting(database, 20)
deliver('ended', 0)
gevent.killall(greenlets)
''',
    'own time-out': '''
polling_timeout = .01
assert Bus.subscribe(database, ['ended'])['message'] is None
polling_timeout = 300
''',
    }


@pytest.mark.one_series
@pytest.mark.parametrize('end', ENDS)
def test_ended_wait_leaves_nothing_and_loses_nothing(end, sections, database):
    run('listen(database)' + ENDS[end] + '''
assert statistics(database)['waiting'] == 0
if not Bus._messages[database].get_next(['ended'])[1]:
    deliver('ended', 0)
assert Bus.subscribe(database, ['ended'])['message'] == {'message_id': 0}
with Polls(database, ['ended'], 3, last=0) as polls:
    waiting(database, 3)
    deliver('ended', 1)
assert [r['message'] for r in polls.results] == [{'message_id': 1}] * 3
''', sections, database)


@pytest.mark.one_series
@pytest.mark.parametrize('limit', ['timeout', 'own time-out'])
def test_time_out_racing_with_wake_up_loses_nothing(
        limit, sections, database):
    run('''
def poll(limit, number):
    global polling_timeout
    if own:
        polling_timeout = limit
        response = Bus.subscribe(database, ['raced'], number - 1)
        polling_timeout = 300
        return response['message']
    with gevent.Timeout(limit, False):
        return Bus.subscribe(database, ['raced'], number - 1)['message']

listen(database)
deliver('raced', -1)
late = 0
for number in range(500):
    limit = (number % 7 + 1) / 2000
    delivery = gevent.spawn_later(
        (number % 5 + 1) / 2000, deliver, 'raced', number)
    message = poll(limit, number)
    if not message:
        late += 1
        message = Bus.subscribe(database, ['raced'], number - 1)['message']
    assert message == {'message_id': number}, (message, number)
    delivery.join()
    assert statistics(database)['waiting'] == 0
assert 0 < late < 500, late
'''.replace('if own:', f'if {limit == "own time-out"}:'), sections, database)


# The pool of psycopg connects in its own greenlets, and a fork would double
# them. It is filled before, and never grows.
FILL = '''
from trytond import backend
pool = backend.Database(database).connect()._connpool
if hasattr(pool, 'wait'):
    pool.wait()
'''


@pytest.fixture
def full_pool(sections):
    sections['database'].update(minconn=8, maxconn=8)
    return sections


@pytest.mark.one_series
def test_hub_ends_without_waits(sqlite_database):
    run('''
with Polls(database, ['channel'], 10) as polls:
    waiting(database, 10)
    publish(database, 'channel', {'type': 'x'})
assert all(r['message'] for r in polls.results)
with gevent.Timeout(.01, False):
    Bus.subscribe(database, ['other'])
assert gevent.wait(timeout=60)
''', {'database': {'uri': 'sqlite://', 'path': sqlite_database.parent}},
        'tryton')


def test_parent_and_child_go_on_after_fork(full_pool, database):
    run(FILL + '''
listen(database)
with Polls(database, ['channel'], 20) as polls:
    waiting(database, 20)
    child = fork(works, database)
    works(database)
    join(child)
    id_, = publish(database, 'channel', {'type': 'after'})
assert {r['message']['message_id'] for r in polls.results} == {id_}
''', full_pool, database)


def test_child_takes_no_notifications_of_its_parent(full_pool, database):
    run(FILL + '''
def stay():
    works(database)
    os.write(ready, b'x')
    while os.getppid() == parent and not os.path.exists(over):
        gevent.sleep(.01)

parent = os.getpid()
over = f'/proc/{parent}/fd/99'
listen(database)
reader, ready = os.pipe()
child = fork(stay)
os.read(reader, 1)
last = None
for number in range(300):
    id_, = publish(database, 'channel', {'type': 'x'})
    with gevent.Timeout(30):
        message = Bus.subscribe(database, ['channel'], last)['message']
    assert message['message_id'] == id_
    last = id_
os.dup2(reader, 99)
join(child)
assert statistics(database)['gaps'] == 0
''', full_pool, database)


@pytest.mark.one_series
@pytest.mark.parametrize('start', [
        'gevent.spawn(Bus.subscribe, database, ["channel"])',
        'threading.Thread(target=Bus.subscribe, '
        'args=(database, ["channel"])).start()',
        'threading.Thread(target=Bus.subscribe, '
        'args=(database, ["channel"]), daemon=True).start()',
        ])
def test_exit_does_not_wait_for_greenlets(start, sections, database):
    run(f'''
listen(database)
for _ in range(100):
    {start}
waiting(database, 100)
''', sections, database)


@pytest.mark.one_series
def test_native_thread_of_gevent_waits_as_well(sections, database):
    run('''
listen(database)
polls = [
    gevent.get_hub().threadpool.spawn(Bus.subscribe, database, ['channel'])
    for _ in range(3)]
waiting(database, 3)
id_, = publish(database, 'channel', {'type': 'x'})
for poll in polls:
    assert poll.get(timeout=60)['message']['message_id'] == id_
assert statistics(database)['waiting'] == 0
''', sections, database)


def test_trytond_with_coroutines_answers_all_polls(
        sections, database, tmp_path):
    sections['wsgi middleware'] = {'insight': 'support.insight.insight'}
    with TrytondServer(
            tmp_path, sections, [database], kind='coroutine') as server, \
            ThreadPoolExecutor(100) as executor:
        client = TrytonClient(server.url, database, timeout=60)

        def poll(number):
            return client.post('/bus', {'channels': ['channel']})['message']

        threads = look(server)['threads']
        polls = [executor.submit(poll, number) for number in range(100)]
        wait_until(lambda: look(server)['waiting'] == 100, 60)
        assert look(server)['threads'] <= threads + 16
        id_, = publish(database, 'channel', {'type': 'x'})
        assert {
            poll.result(60)['message_id'] for poll in polls} == {id_}
        assert look(server)['waiting'] == 0
