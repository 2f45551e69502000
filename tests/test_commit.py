"""A message is delivered if and only if its transaction commits."""
import uuid
from contextlib import suppress

import pytest
from support.bus import drain, received
from trytond.bus import Bus
from trytond.transaction import Transaction


def start(database, channel, **options):
    return Transaction().start(
        database, 0, context={'channel': channel}, **options)


def publish(text):
    Bus.publish(
        Transaction().context['channel'], {'type': 'test', 'text': text})


def execute(sql):
    Transaction().connection.cursor().execute(sql)


def commit():
    publish('a')


def rollback():
    publish('lost')
    Transaction().rollback()


def error():
    publish('lost')
    raise ZeroDivisionError


def rollback_then_commit():
    publish('lost')
    Transaction().rollback()
    publish('a')


def two_commits():
    publish('a')
    Transaction().commit()
    publish('b')
    Transaction().commit()


def commit_then_rollback():
    publish('a')
    Transaction().commit()
    publish('lost')
    Transaction().rollback()


def module_commits_the_connection():
    publish('a')
    Transaction().connection.commit()
    publish('lost')
    Transaction().rollback()


def module_rolls_the_connection_back():
    publish('lost')
    Transaction().connection.rollback()
    publish('a')


def savepoint_rolled_back():
    publish('a')
    execute('SAVEPOINT one')
    publish('lost')
    execute('ROLLBACK TO SAVEPOINT one')
    publish('b')


def savepoint_released():
    publish('a')
    execute('SAVEPOINT one')
    publish('b')
    execute('RELEASE SAVEPOINT one')
    publish('c')


def savepoints_nested():
    publish('a')
    execute('SAVEPOINT one')
    publish('b')
    execute('SAVEPOINT two')
    publish('lost')
    execute('ROLLBACK TO SAVEPOINT two')
    publish('c')
    execute('RELEASE SAVEPOINT one')


def savepoint_after_error():
    publish('a')
    execute('SAVEPOINT one')
    publish('lost')
    with suppress(Exception):
        execute('SELECT 1 / 0')
    execute('ROLLBACK TO SAVEPOINT one')
    publish('b')


def large_in_savepoint_rolled_back():
    publish('a')
    execute('SAVEPOINT one')
    publish('lost' * 10_000)
    execute('ROLLBACK TO SAVEPOINT one')
    publish('b')


def nested_commits_and_outer_rolls_back():
    publish('lost')
    with Transaction().new_transaction():
        publish('a')
    Transaction().rollback()


def nested_rolls_back_and_outer_commits():
    publish('a')
    with Transaction().new_transaction() as nested:
        publish('lost')
        nested.rollback()
    publish('b')


def nested_commits_first():
    publish('b')
    with Transaction().new_transaction():
        publish('a')


@pytest.mark.parametrize('body, expected', [
        (commit, 'a'),
        (rollback, ''),
        (error, ''),
        (rollback_then_commit, 'a'),
        (two_commits, 'ab'),
        (commit_then_rollback, 'a'),
        (module_commits_the_connection, 'a'),
        (module_rolls_the_connection_back, 'a'),
        (savepoint_rolled_back, 'ab'),
        (savepoint_released, 'abc'),
        (savepoints_nested, 'abc'),
        (savepoint_after_error, 'ab'),
        (large_in_savepoint_rolled_back, 'ab'),
        (nested_commits_and_outer_rolls_back, 'a'),
        (nested_rolls_back_and_outer_commits, 'ab'),
        (nested_commits_first, 'ab'),
        ], ids=lambda value: getattr(value, '__name__', ''))
def test_committed_messages_are_delivered(listening, channel, body, expected):
    with suppress(ZeroDivisionError), start(listening, channel):
        body()

    texts = [message['text'] for message in received(listening, channel)]
    assert texts == list(expected)


def test_nothing_is_delivered_before_the_commit(listening, channel):
    with start(listening, channel):
        publish('a')
        before = received(listening, channel)

    assert before == []
    assert len(received(listening, channel)) == 1


def test_committed_read_only_transaction_delivers(listening, channel):
    with start(listening, channel, readonly=True) as transaction:
        publish('a')
        # As the dispatcher does after a call
        transaction.commit()

    assert len(received(listening, channel)) == 1


def test_autocommit_transaction_delivers_at_once(listening, channel):
    with start(listening, channel, autocommit=True) as transaction:
        publish('a')
        publish('b' * 10_000)
        small, large = drain(listening, [channel], 2)
        transaction.rollback()

    assert small['text'] == 'a' and large['text'] == 'b' * 10_000


def test_later_change_of_the_dictionary_is_not_delivered(listening, channel):
    inner = ['before']
    message = {'type': 'test', 'inner': inner}
    with start(listening, channel):
        Bus.publish(channel, message)
        published = {**message, 'inner': inner[:]}
        inner.append('after')
        message['type'] = 'after'
        Bus.publish(channel, message)

    assert received(listening, channel) == [published, message]


def test_id_is_set_in_the_dictionary_of_the_caller(listening, channel):
    message = {'type': 'test', 'message_id': 'mine'}
    ids = []
    with start(listening, channel):
        for _ in range(2):
            Bus.publish(channel, message)
            ids.append(message['message_id'])

    for id_ in ids:
        assert str(uuid.UUID(id_)) == id_ and uuid.UUID(id_).version == 4
    assert ids == [m['message_id'] for m in received(listening, channel)]
    assert len(set(ids)) == 2
