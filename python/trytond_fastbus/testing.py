"""Helpers to test modules that publish on the bus."""
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

__all__ = ['Published', 'published']


class Published(NamedTuple):
    "A message as it was published, without its id"

    channel: str
    message: dict


@contextmanager
def published():
    """Record the messages that are published within the block, including
    those of `trytond.bus.notify`; gives a list of Published, which are tuples.

        with published() as messages:
            Party.browse([1])[0].remind()
        self.assertEqual(messages, [('user:1', {'type': 'reminder'})])

    Messages are recorded when they are published. The list also has those of
    a transaction that is never committed, such as in trytond's
    with_transaction, or that is rolled back later. It works with any class of
    the bus, including stock's.
    """
    from trytond.bus import Bus
    publish, messages = Bus.publish, []

    def record(cls, channel, message):
        # publish adds the id to the message.
        found = Published(channel, dict(message))
        publish(channel, message)
        messages.append(found)

    with patch.object(Bus, 'publish', classmethod(record)):
        yield messages
