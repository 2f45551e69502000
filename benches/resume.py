"""Clients that reconnect after a restart of their server, with the journal."""
import json
import time
import uuid

import psycopg

from examples.client import TrytonClient
from tests.support import wait_until
from tests.support.polls import Polls
from tests.support.server import BusServer, TrytondServer, create_tryton

from . import samples
from .readers import TABLE
from .report import Row

DATABASE = 'bench_resume'
# The messages for each client while its server is down
MISSED = 10


def run(postgresql, directory, quick):
    "Rows of clients whose server is started again"
    clients, rounds = (200, 1) if quick else (1000, 3)
    postgresql.create_database(DATABASE)
    sections = {
        'database': {'uri': postgresql.uri},
        'bus': {
            'journal': True, 'long_polling_timeout': 600,
            'session_polls': 2 * clients},
        }
    create_tryton(sections, DATABASE)
    with TrytondServer(directory, sections, [DATABASE]) as trytond:
        client = TrytonClient(trytond.url, DATABASE)
        for name, kind, number in [
                ("trytond-bus", BusServer, clients),
                ("trytond", TrytondServer, min(clients, 200))]:
            server = kind(directory, sections, [DATABASE])
            figures = [
                restart(server, client, postgresql, number)
                for _ in range(rounds)]
            starts, readies, lost, twice = zip(*figures, strict=True)
            text = "%s, %s clients come back, " % (name, format(number, ','))
            yield Row(
                'g', text + "after its start", 's', [], starts,
                statistic='median')
            yield Row(
                'g', text + "after it is ready", 's', [], readies,
                statistic='median')
            for what, found in [("lost", lost), ("twice", twice)]:
                yield Row(
                    'g', text + what, 'messages', [], [sum(found)], most=0)


def restart(server, client, postgresql, clients):
    """Seconds from the start, and from the readiness, until all clients have
    the messages that they missed, and how many messages were lost and received
    twice"""
    client.bus_url = f'{server.url}/{DATABASE}'
    channels = ['client:%s' % uuid.uuid4() for _ in range(clients)]
    with psycopg.connect(
            f'{postgresql.uri}/{DATABASE}', autocommit=True) as connection:
        with server, Polls(
                server.port, DATABASE, client._headers, channels) as polls:
            wait_until(lambda: is_there(connection))
            insert(connection, channels, 1)
            polls.wait(clients, 60)
            lasts = {
                channel: answer['message']['message_id']
                for channel, _, answer, _ in polls.answers}
            server.terminate()
        sent = insert(connection, channels, MISSED)
    started = time.perf_counter()
    with server:
        ready = time.perf_counter()
        received = {channel: [] for channel in channels}
        with Polls(server.port, DATABASE, client._headers, []) as polls:
            for channel in channels:
                polls.poll(channel, lasts[channel])
            for number in range(MISSED * clients):
                polls.wait(number + 1, 60)
                channel, _, answer, _ = polls.answers[number]
                assert answer['message'], "an empty answer"
                received[channel].append(answer['message']['message_id'])
                polls.poll(channel, received[channel][-1])
            end = time.perf_counter()
            # Further messages would arrive at once.
            polls.look(.5)
            more = len(polls.answers) - MISSED * clients
    lost = sum(
        len(set(sent[channel]) - set(received[channel]))
        for channel in channels)
    twice = more + sum(
        len(ids) - len(set(ids)) for ids in received.values())
    assert all(
        not set(received[channel]) - set(sent[channel])
        for channel in channels), "an unknown message"
    return end - started, end - ready, lost, twice


def is_there(connection):
    "Whether the first polls have had the journal made"
    return connection.execute(
        'SELECT to_regclass(%s) IS NOT NULL', (TABLE,)).fetchone()[0]


def insert(connection, channels, count):
    "Publish this number of messages to each channel; returns the ids of each"
    ids = {channel: [] for channel in channels}
    for _ in range(count):
        for channel in channels:
            ids[channel].append(str(uuid.uuid4()))
        connection.execute(
            f'INSERT INTO {TABLE} (channel, message) '
            'SELECT * FROM unnest(%s::text[], %s::text[])', (
                channels, [
                    json.dumps({
                            **samples.notification(),
                            'message_id': ids[channel][-1]})
                    for channel in channels]))
    return ids
