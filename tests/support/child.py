"""Helpers of test programs that fork, wait and end."""
import faulthandler
import os
import signal
import sys
import traceback
import uuid

import trytond_fastbus

from . import wait_until
from .bus import Polls, listen, publish, statistics

DEADLINE = 60


def waiting(database, count):
    "Wait until this number of subscribers wait"
    def enough():
        # The first subscriber makes the bus.
        bus = trytond_fastbus.statistics().get(database, {'waiting': 0})
        return bus['waiting'] == count

    wait_until(enough, DEADLINE, f"not {count} waiters")


def works(database):
    "Publish, subscribe and receive; raise an error if that fails"
    listen(database)
    channel = f'works:{uuid.uuid4()}'
    before = statistics(database)['waiting']
    with Polls(database, [channel], 3) as polls:
        waiting(database, before + 3)
        id_, = publish(database, channel, {'type': 'works'})
    for response in polls.results:
        assert response['message']['message_id'] == id_, response


def fork(function, *args):
    "Call the function in a forked child, and return the child's id"
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(DEADLINE)
        function(*args)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def join(*pids):
    "Wait for children and raise an error if one has failed"
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert not any(statuses), statuses
