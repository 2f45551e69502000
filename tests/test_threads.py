"""Many threads at once. On a free-threaded Python they run in parallel."""
import contextvars
import os
import select
import socket
import sysconfig
import threading

import pytest
from support import wait_until
from support.server import run_python
from trytond_fastbus import hangup

PREAMBLE = '''
import sys, threading
from trytond_fastbus import Bus, queues, settings, statistics
from support.bus import payload, publish
from support.child import waiting, works

database, = sys.argv[1:]
errors = []

def at_once(*functions):
    "Run each of them in a thread, all at the same moment"
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(function,), daemon=True)
        for function in functions]
    for thread in threads:
        thread.start()
    return threads

def join(threads):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors, errors
'''


def run(source, sections, database):
    process = run_python(PREAMBLE + source, sections, database, timeout=600)
    assert process.returncode == 0 and not process.stderr, process.stderr


@pytest.mark.skipif(
    not sysconfig.get_config_var('Py_GIL_DISABLED'),
    reason="this Python is not free-threaded")
def test_import_leaves_the_gil_off():
    # Not in this process, where another module may have enabled the GIL
    run_python(
        'import sys, trytond_fastbus; assert not sys._is_gil_enabled()', {},
        PYTHON_GIL='').check_returncode()


def test_first_calls_of_a_process_at_once(postgresql, database):
    for _ in range(3):
        run('''
responses = []
threads = at_once(
    *10 * [lambda: publish(database, 'before', {'type': 'x'})],
    *10 * [lambda: responses.append(Bus.subscribe(database, ['c']))],
    *10 * [statistics])
waiting(database, 10)
works(database)
listeners = [
    thread for thread in threading.enumerate()
    if thread.name == 'bus-listener']
assert len(listeners) == 1, listeners
id_, = publish(database, 'c', {'type': 'x'})
join(threads)
assert [r['message']['message_id'] for r in responses] == 10 * [id_]
''', {'database': {'uri': postgresql.uri}}, database)


def test_all_get_all_messages_of_many_publishers(sqlite_database):
    run('''
PUBLISHERS, CLIENTS, MESSAGES = 8, 8, 500

def publish_numbers(publisher):
    for number in range(MESSAGES):
        queues.deliver(Bus, database, [payload('c', {
            'message_id': '%d/%d' % (publisher, number)})])

def poll():
    got, last = [], None
    while len(got) < PUBLISHERS * MESSAGES:
        last = Bus.subscribe(database, ['c'], last)['message']['message_id']
        got.append(last)
    orders.append(got)

orders = []
queues.ensure(Bus, database)
join(at_once(
    *CLIENTS * [poll],
    *[lambda n=n: publish_numbers(n) for n in range(PUBLISHERS)]))
assert orders == CLIENTS * [orders[0]]
for publisher in range(PUBLISHERS):
    own = [id_ for id_ in orders[0] if id_.startswith('%d/' % publisher)]
    assert own == ['%d/%d' % (publisher, n) for n in range(MESSAGES)], own
''', {'database': {'uri': 'sqlite://', 'path': sqlite_database.parent}},
        sqlite_database.stem)


def test_listeners_that_end_while_others_start(postgresql, database):
    run('''
def poll():
    for _ in range(100):
        Bus.subscribe(database, ['c'])

database_timeout, polling_timeout = .05, .01
settings.select_timeout = lambda: .01
settings.database_timeout = lambda: database_timeout
settings.long_polling_timeout = lambda: polling_timeout
join(at_once(*8 * [poll]))
database_timeout = polling_timeout = 300
works(database)
''', {'database': {'uri': postgresql.uri}}, database)


@pytest.fixture
def connection():
    "The two ends of a connection"
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_thread_that_a_request_starts_does_not_wait_for_its_client(connection):
    "In a free-threaded Python it inherits the context of the request."
    with hangup.serving({'werkzeug.socket': connection[0]}):
        end = hangup.watch(lambda: None)
        watches = []
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(lambda: watches.append(hangup.watch(lambda: None)),))
        thread.start()
        thread.join()
        end()

    assert watches == [None]


class Epoll:
    "Returns the next events when it is told to"

    def __init__(self):
        self._epoll = select.epoll()
        self.register = self._epoll.register
        self.unregister = self._epoll.unregister
        self.asked, self.came, self.go = (
            threading.Semaphore(0) for _ in range(3))

    def poll(self):
        self.asked.release()
        events = self._epoll.poll()
        self.came.release()
        self.go.acquire()
        return events


def test_end_of_a_connection_does_not_end_the_wait_of_the_next(connection):
    "The next connection reuses the number of the descriptor."
    watcher, ended = hangup._Watcher(), []
    watcher._epoll = epoll = Epoll()
    fd = connection[0].fileno()
    end = watcher.watch(fd, lambda: ended.append('first'))
    connection[1].close()
    assert epoll.asked.acquire(timeout=60)
    assert epoll.came.acquire(timeout=60)
    end()
    one, other = socket.socketpair()
    with one, other:
        os.dup2(one.fileno(), fd)
        watcher.watch(fd, lambda: ended.append('next'))
        epoll.go.release()
        # The event of the first connection is handled by now.
        assert epoll.asked.acquire(timeout=60)
        assert not ended
    assert epoll.came.acquire(timeout=60)
    epoll.go.release()
    wait_until(lambda: ended, 60)
    assert ended == ['next']
