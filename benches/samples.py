"""The messages and channels of the benchmarks."""
import datetime
import json
import uuid

# How many retained messages there are for each channel
PER_CHANNEL = 10


def notification():
    "A message as trytond.bus.notify makes it"
    return {
        'type': 'notification',
        'title': "The report is ready",
        'body': "Invoice 2026/00042 of Saber Enterprise was printed",
        'priority': 1,
        }


def chat():
    "A message as trytond.ir.chat dispatches it"
    return {
        'type': 'message',
        'message': {
            'id': 4711,
            'timestamp': datetime.datetime(2026, 3, 14, 15, 9, 26, 535897),
            'user': 5,
            'author': "Ada Lovelace",
            'avatar_url': (
                '/avatar/0123456789abcdef0123456789abcdef?s=64'),
            'content': (
                "Could you have a look at the second line? "
                "The customer says \u201cthe price is 12 \u20ac\u201d."),
            'audience': 'internal',
            },
        }


def channels(number=0):
    "The channels that a client asks for, in a set as the route passes it"
    return {
        'client:%s' % uuid.UUID(int=number),
        'notification:%d' % number,
        'user:%d' % number,
        }


def payloads(count, channel=None):
    "The NOTIFY payloads of notifications, to a channel or to many"
    return [
        json.dumps({
                'channel': channel or 'client:%s' % uuid.UUID(
                    int=2 ** 64 + number // PER_CHANNEL),
                'message': {
                    **notification(), 'message_id': str(uuid.uuid4())},
                }, separators=(',', ':'))
        for number in range(count)]
