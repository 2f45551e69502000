"""After a fork at any moment both processes continue, Ctrl-C ends a wait, and
nothing delays the exit of the interpreter."""
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from support.bus import Wire
from support.server import environment, run_python, write_config

TRAFFIC = '{"channel":"other","message":{"message_id":1}}'
PREAMBLE = '''
import multiprocessing, os, signal, sys, threading, time
import trytond_fastbus
from trytond_fastbus import Bus, queues
from support import wait_until
from support.bus import Polls, listen, payload, publish, statistics
from support.child import fork, join, waiting, works

database = sys.argv[1]
'''


def run(source, postgresql, database, *args, **environ):
    "Run the program after the preamble, and return its output"
    process = run_python(
        PREAMBLE + source, sections(postgresql), database, *args,
        timeout=600, **environ)
    assert (process.returncode, process.stderr) == (0, '')
    return process.stdout


def sections(postgresql):
    return {'database': {'uri': postgresql.uri}, 'bus': {'select_timeout': 1}}


FORKS = {
    'import': '''
join(fork(works, database))
works(database)
''',
    'publish': '''
publish(database, 'channel', {'type': 'before'})
join(fork(works, database))
works(database)
''',
    'subscribe': '''
works(database)
join(fork(works, database))
works(database)
''',
    'waiting': '''
listen(database)
with Polls(database, ['channel'], 50) as polls:
    waiting(database, 50)
    join(*[fork(works, database) for _ in range(3)])
    works(database)
    id_, = publish(database, 'channel', {'type': 'after'})
assert {r['message']['message_id'] for r in polls.results} == {id_}
''',
    # No transactions here: trytond's own locks do not survive such a fork.
    'hammering': '''
listen(database)
over = threading.Event()

def hammer(channel):
    while not over.is_set():
        Bus.subscribe(database, [channel])
        queues.deliver(Bus, database, [
            payload(channel, {'message_id': 'x', 'type': 'hammer'})])

def wait(number):
    last = None
    while not over.is_set():
        response = Bus.subscribe(database, ['waited'], last)
        last = response['message'] and response['message']['message_id']

def wake():
    number = 0
    while not over.is_set():
        number += 1
        queues.deliver(Bus, database, [
            payload('waited', {'message_id': number})])

queues.deliver(Bus, database, [
    payload(str(n), {'message_id': 'x'}) for n in range(4)])
threads = [
    *(threading.Thread(target=hammer, args=(str(n),)) for n in range(4)),
    *(threading.Thread(target=wait, args=(n,)) for n in range(4)),
    threading.Thread(target=wake)]
for thread in threads:
    thread.start()
for _ in range(20):
    join(fork(works, database))
over.set()
queues.deliver(Bus, database, [payload('waited', {'message_id': 'last'})])
for thread in threads:
    thread.join(60)
    assert not thread.is_alive()
works(database)
''',
    'fork of a fork': '''
def again():
    works(database)
    join(fork(works, database))
    works(database)

works(database)
join(fork(again))
works(database)
''',
    'multiprocessing': '''
works(database)
context = multiprocessing.get_context('fork')
processes = [
    context.Process(target=works, args=(database,)) for _ in range(2)]
for process in processes:
    process.start()
works(database)
for process in processes:
    process.join(60)
    assert process.exitcode == 0, process.exitcode
with context.Pool(2) as pool:
    pool.map(works, [database] * 2)
works(database)
''',
    }


@pytest.mark.parametrize('before', FORKS)
def test_parent_and_child_go_on_after_fork(before, postgresql, database):
    run(FORKS[before], postgresql, database)


def test_messages_of_parent_are_not_those_of_child(postgresql, database):
    run('''
listen(database)
publish(database, 'channel', {'type': 'before'})
assert Bus.subscribe(database, ['channel'])['message']

def child():
    assert trytond_fastbus.statistics() == {}
    assert database not in Bus._messages
    works(database)

join(fork(child))
assert Bus.subscribe(database, ['channel'])['message']
''', postgresql, database)


WAIT = '''
def wait():
    Bus.subscribe(database, ['channel'])

listen(database)
'''
ENDS = {
    'daemons': '''
for _ in range(100):
    threading.Thread(target=wait, daemon=True).start()
waiting(database, 100)
''',
    'threads': '''
for _ in range(100):
    threading.Thread(target=wait).start()
waiting(database, 100)
''',
    'executor': '''
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(20)
for _ in range(20):
    executor.submit(wait)
waiting(database, 20)
''',
    'child of multiprocessing': '''
def child():
    works(database)
    threading.Thread(target=wait).start()
    waiting(database, 1)

listen(database)
process = multiprocessing.get_context('fork').Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
''',
    'polling daemons': '''
def poll(channel):
    while True:
        Bus.subscribe(database, [channel], 1)

for channel in ['channel', 'other'] * 10:
    threading.Thread(target=poll, args=(channel,), daemon=True).start()
wait_until(lambda: statistics(database)['waiting'] >= 10)
''',
    'nobody': '',
    }


@contextmanager
def traffic(postgresql, database):
    "Let notifications arrive all the time"
    def notify():
        with Wire(f'{postgresql.uri}/{database}') as wire:
            while not over.wait(.0005):
                wire.notify([('bus', TRAFFIC)])

    over = threading.Event()
    thread = threading.Thread(target=notify)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# Notifications arrive while the interpreter exits, and its daemon threads
# handle them.
@pytest.mark.one_series
@pytest.mark.parametrize('waiters', ENDS)
def test_exit_is_clean_while_messages_arrive(waiters, postgresql, database):
    with traffic(postgresql, database):
        for _ in range(3):
            run(WAIT + ENDS[waiters], postgresql, database)


@pytest.mark.one_series
@pytest.mark.parametrize('waiters', ENDS)
def test_exit_does_not_wait_for_waiters(waiters, postgresql, database):
    run(WAIT + ENDS[waiters], postgresql, database)


@pytest.mark.one_series
def test_interrupt_ends_wait_of_main_thread(postgresql, database, tmp_path):
    source = PREAMBLE + '''
# A shell has its background jobs ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def tell():
    waiting(database, 1)
    print('waits', flush=True)

listen(database)
threading.Thread(target=tell).start()
try:
    Bus.subscribe(database, ['channel'])
except KeyboardInterrupt:
    waiting(database, 0)
    works(database)
    print('interrupted')
'''
    config = write_config(tmp_path / 'trytond.conf', sections(postgresql))
    process = subprocess.Popen(
        [sys.executable, '-c', source, database], text=True,
        env=environment(TRYTOND_CONFIG=str(config)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == 'waits\n'
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ('interrupted\n', '')
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize('imports', [
        'import trytond_fastbus.bus',
        'import trytond.bus',
        'trytond_fastbus.install(); import trytond.application',
        'import trytond.application',
        ])
def test_nothing_starts_at_import(imports, postgresql, database):
    assert run(imports + '''
import trytond.bus
assert trytond.bus.Bus is Bus
# A thread that was joined may still be on its way out.
wait_until(lambda: len(os.listdir('/proc/self/task')) == 1)
print(trytond_fastbus.statistics())
''', postgresql, database, TRYTOND_DATABASE_NAMES=database) == '{}\n'
