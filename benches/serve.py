"""Long polls over HTTP, held by trytond itself and by the bus server."""
import json
import os
import tempfile
import time
import uuid

import psycopg

from examples.client import TrytonClient
from tests.support.polls import Polls
from tests.support.server import BusServer, TrytondServer, create_tryton

from .report import Row

TITLE = "(f) long polls over HTTP: trytond, and trytond-bus beside it"
DATABASE = 'bench_serve'
TICKS = os.sysconf('SC_CLK_TCK')


def run(postgresql, quick):
    polls, rounds = (200, 2) if quick else (1000, 5)
    postgresql.create_database(DATABASE)
    sections = {
        'database': {'uri': postgresql.uri},
        'bus': {
            'class': None, 'long_polling_timeout': 600,
            'session_polls': 2 * polls},
        }
    create_tryton(sections, DATABASE)
    with tempfile.TemporaryDirectory() as directory:
        ours = measure_bus_server(
            directory, sections, postgresql, polls, rounds)
        for text, kind in [
                ("threads", 'threaded'), ("greenlets", 'coroutine')]:
            with TrytondServer(
                    directory, sections, [DATABASE], kind=kind) as server:
                client = TrytonClient(server.url, DATABASE)
                client.bus_url = client.url
                stock = measure(server, client, postgresql, polls, rounds)
            for index, (what, unit) in enumerate([
                        ("memory of a poll", 'KB'),
                        ("CPU to take a poll in", 'ms'),
                        ("commit to the last client", 'ms'),
                        ("CPU of a delivery and the next poll", 'ms')]):
                yield Row(
                    'f', "%s polls, stock with %s, %s"
                    % (format(polls, ','), text, what), unit,
                    stock[index], ours[index], statistic='median')


def measure_bus_server(directory, sections, postgresql, polls, rounds):
    with TrytondServer(directory, sections, [DATABASE]) as trytond, \
            BusServer(directory, sections, [DATABASE]) as server:
        client = TrytonClient(trytond.url, DATABASE, bus=server.url)
        return measure(server, client, postgresql, polls, rounds)


def measure(server, client, postgresql, polls, rounds):
    "The samples of the four figures"
    channels = ['client:%s' % uuid.uuid4() for _ in range(polls)]
    # So that the memory of a first poll is allocated.
    with waiting(server, client, channels[:10]):
        pass
    memory, cpu = resident(server), used(server)
    with waiting(server, client, channels) as held:
        taken = (resident(server) - memory) / 1e3 / polls
        cpu = (used(server) - cpu) * 1e3 / polls
        lasts, deliveries = [], []
        with psycopg.connect(
                '%s/%s' % (postgresql.uri, DATABASE),
                autocommit=True) as connection:
            for _ in range(rounds):
                before = used(server)
                answered = len(held.answers)
                id = publish(connection, 'user:%d' % client.user_id)
                begun = time.perf_counter()
                held.wait(answered + polls, 120)
                lasts.append((time.perf_counter() - begun) * 1e3)
                assert not held.failures, "a poll failed"
                for channel, _, answer, _ in held.answers[answered:]:
                    assert answer['message']['message_id'] == id
                    held.poll(channel, id)
                rest(server, held.look)
                deliveries.append((used(server) - before) * 1e3 / polls)
    return [taken], [cpu], lasts, deliveries


def waiting(server, client, channels):
    "Polls of the channels, that the server holds"
    port = int(client.bus_url.split(':')[2].split('/')[0])
    polls = Polls(port, DATABASE, client._headers, channels)
    rest(server, polls.look)
    return polls


def publish(connection, channel):
    id = str(uuid.uuid4())
    connection.execute('SELECT pg_notify(%s, %s)', ('bus', json.dumps({
                    'channel': channel,
                    'message': {
                        'type': 'notification', 'title': "A title",
                        'body': "Some text of the usual length",
                        'priority': 1, 'message_id': id},
                    })))
    return id


def rest(server, wait=time.sleep):
    "Wait, checking every tenth of a second, until the server is idle"
    quiet, last = 0, used(server)
    while quiet < 5:
        wait(.1)
        now = used(server)
        quiet = quiet + 1 if now - last < .02 else 0
        last = now


def resident(server):
    with open('/proc/%d/statm' % server.process.pid) as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE')


def used(server):
    "The CPU that the server has used, in seconds"
    with open('/proc/%d/stat' % server.process.pid) as file:
        fields = file.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
