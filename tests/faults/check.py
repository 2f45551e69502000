"""Tells from the logs of publishers and clients what the bus did wrong.

A unit is what one commit makes true: a transaction, the part of one up to a
commit of its connection, or a single message that is sent in autocommit. A
publisher logs what it does with each, before (begin, publish, commit) or
after (undo, committed, rolled back, unknown) it has done it.

The times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""
import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations


@dataclass
class Message:
    "A published message"
    tag: str
    channel: str
    size: int
    unit: 'Unit'
    number: int  # its position in its unit
    undone: bool = False


@dataclass
class Unit:
    "The work of one commit"
    id: str
    ledger: bool  # the row is in the table if the unit was committed
    messages: list = field(default_factory=list)
    begun: float = None
    returned: float = math.inf
    outcome: str = None
    committed: bool = False


@dataclass
class Client:
    "A client, and its messages in the order of their arrival"
    id: str
    channels: frozenset
    started: float
    received: list = field(default_factory=list)


def read_units(events):
    "Return the units of the publishers, and their messages by tag"
    units, messages = {}, {}
    for event in events:
        if event['event'] == 'begin':
            units[event['unit']] = Unit(event['unit'], event['ledger'])
            continue
        unit = units[event['unit']]
        match event['event']:
            case 'publish':
                message = Message(
                    event['tag'], event['channel'], event['size'], unit,
                    len(unit.messages))
                unit.messages.append(message)
                messages[message.tag] = message
            case 'undo':
                for tag in event['tags']:
                    messages[tag].undone = True
            case 'commit':
                unit.begun = event['time']
            case 'committed':
                unit.returned = event['time']
                unit.outcome = 'committed'
            case outcome:
                unit.outcome = outcome
    return units, messages


def read_clients(events):
    clients = {}
    for event in events:
        if event['event'] == 'start':
            clients[event['client']] = Client(
                event['client'], frozenset(event['channels']), event['time'])
        elif event['event'] == 'received':
            clients[event['client']].received.append(event)
    return clients


def check(published, received, ledger):
    """Return the violations, as sentences.

    published are the events of all publishers, each in its own order. received
    are those of all clients. ledger has the ids of the units that the database
    has in the end.
    """
    units, messages = read_units(published)
    clients = read_clients(received)
    violations = list(resolve(units, messages, clients, ledger))
    orders = {}
    for client in clients.values():
        violations += check_received(client, messages)
        order = [
            messages[tag] for tag in dict.fromkeys(
                event['tag'] for event in client.received)
            if is_true(messages.get(tag))]
        orders[client.id] = order
        violations += check_missing(client, order, messages)
        violations += check_order(client, order)
    for pair in combinations(orders.items(), 2):
        violations += check_agreement(*pair)
    return violations


def is_true(message):
    return message and message.unit.committed and not message.undone


def resolve(units, messages, clients, ledger):
    "Decide which units were committed, by the database if it knows"
    got = {
        messages[event['tag']].unit.id for client in clients.values()
        for event in client.received if event['tag'] in messages}
    for unit in units.values():
        if unit.begun is None:
            unit.committed = False
        elif unit.ledger:
            unit.committed = unit.id in ledger
            if unit.outcome == 'committed' and not unit.committed:
                yield (f"The transaction {unit.id} was committed and is not "
                    "in the database.")
            elif unit.outcome == 'rolled back' and unit.committed:
                yield (f"The transaction {unit.id} was rolled back and is in "
                    "the database.")
        else:
            # A unit was committed if one client has a message of it.
            unit.committed = (
                unit.outcome == 'committed' or unit.id in got)


def check_received(client, messages):
    "Messages that must not arrive, and messages that were changed"
    seen = defaultdict(int)
    for event in client.received:
        tag = event['tag']
        seen[tag] += 1
        message = messages.get(tag)
        if not message:
            yield (f"Client {client.id} received the message {tag}, which "
                "nobody has published.")
        elif message.undone:
            yield (f"Client {client.id} received the message {tag}, whose "
                "savepoint was rolled back.")
        elif not message.unit.committed:
            yield (f"Client {client.id} received the message {tag}, whose "
                "transaction was rolled back.")
        elif message.channel not in client.channels:
            yield (f"Client {client.id} received the message {tag} of the "
                f"channel {message.channel}, which it does not ask for.")
        elif (event['channel'], event['size']) != (
                message.channel, message.size):
            yield (f"Client {client.id} received the message {tag} as one of "
                f"{event['channel']} with {event['size']} characters, not of "
                f"{message.channel} with {message.size}.")
    for tag, count in seen.items():
        if count > 1:
            yield (f"Client {client.id} received the message {tag} {count} "
                "times.")


def check_missing(client, order, messages):
    """Messages that were committed after the client had started, and are
    missing"""
    received = {message.tag for message in order}
    for message in messages.values():
        if (is_true(message)
                and message.channel in client.channels
                and message.unit.begun > client.started
                and message.tag not in received):
            yield (f"Client {client.id} did not receive the message "
                f"{message.tag} of {message.channel}, whose transaction was "
                "committed.")


def check_order(client, order):
    """Checks the order of publish in a unit, and the order of successive
    commits"""
    latest, last = None, {}
    for message in order:
        unit = message.unit
        before = last.get(unit.id)
        if before and before.number > message.number:
            yield (f"Client {client.id} received the message {message.tag} "
                f"after {before.tag}, which was published later in the "
                "transaction.")
        last[unit.id] = message
        if latest and unit.returned < latest.unit.begun:
            yield (f"Client {client.id} received the message {message.tag} "
                f"after {latest.tag}, whose commit was begun once that of "
                "the former had returned.")
        if not latest or unit.begun > latest.unit.begun:
            latest = message


def check_agreement(one, other):
    "Checks that two clients received their common messages in the same order"
    (one, order), (other, other_order) = one, other
    places = {
        message.tag: place for place, message in enumerate(other_order)}
    common = [message.tag for message in order if message.tag in places]
    for first, second in zip(common, common[1:], strict=False):
        if places[first] > places[second]:
            yield (f"Client {one} received the message {first} before "
                f"{second}, client {other} after it.")
