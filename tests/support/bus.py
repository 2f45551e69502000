"""Actions of trytond's modules and of clients on the bus, in this process.

support.peer calls the same functions in another process.
"""
import json
import os
import select
import threading
import time
import uuid
from contextlib import contextmanager

MARK = 'mark'


@contextmanager
def configured(section, **options):
    "Set options of trytond's configuration until the end of the block"
    import trytond.bus
    import trytond.config
    parser = getattr(trytond.config, '_config', None) or (
        trytond.config.config)
    clear_cache = getattr(trytond.config, '_cache_clear', lambda: None)
    prefix = '_db_' if section == 'database' else '_'
    before = {
        option: parser.get(section, option) if option in parser[section]
        else None for option in options}

    def apply(options):
        for option, value in options.items():
            if value is None:
                parser.remove_option(section, option)
            else:
                parser.set(section, option, str(value))
            # Up to 7.4 trytond.bus reads these when it is imported, where it
            # fails for others than numbers.
            if (hasattr(trytond.bus, prefix + option)
                    and str(value).lstrip('-').isdecimal()):
                setattr(
                    trytond.bus, prefix + option,
                    parser.getint(section, option))
        clear_cache()

    apply(options)
    try:
        yield
    finally:
        apply(before)


def publish(database, channel, *messages, **options):
    "Publish the messages in one transaction and return their ids"
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    with Transaction(new=True).start(database, 0, **options):
        for message in messages:
            Bus.publish(channel, message)
    return [message['message_id'] for message in messages]


def publish_each(database, channel, count):
    """Publish this number of messages, each in a transaction, and return their
    ids"""
    return [
        publish(database, channel, {'n': number})[0]
        for number in range(count)]


def publish_slowly(database, channel, count):
    """Yield 'published' in the transaction, and after it the ids"""
    from trytond.bus import Bus
    from trytond.transaction import Transaction
    messages = [{} for _ in range(count)]
    with Transaction(new=True).start(database, 0):
        for message in messages:
            Bus.publish(channel, message)
        yield 'published'
        # The caller does something meanwhile.
        time.sleep(1)
    yield [message['message_id'] for message in messages]


def drain(database, channels, count, last=None, deadline=60):
    "Poll as a client does and return the next messages, one after the other"
    from trytond.bus import Bus
    messages = []
    end = time.monotonic() + deadline
    while len(messages) < count:
        message = Bus.subscribe(database, channels, last)['message']
        if message:
            messages.append(message)
            last = message['message_id']
        elif time.monotonic() > end:
            raise TimeoutError(
                f"{len(messages)} of {count} messages after {deadline} s")
    return messages


def listen(database):
    "Subscribe, and return when published messages are received"
    channel = f'{MARK}:{uuid.uuid4()}'
    listening = threading.Event()

    def publish_again():
        while not listening.wait(.05):
            publish(database, channel, {'type': MARK})

    publisher = threading.Thread(target=publish_again)
    publisher.start()
    try:
        drain(database, [channel], 1)
    finally:
        listening.set()
        publisher.join()


def stop_listener(database):
    "Stop the listener of this process, as trytond's own tests do"
    from trytond.bus import Bus
    key = os.getpid(), database
    if key in Bus._queues:
        with Bus._queues_lock[os.getpid()]:
            Bus._queues[key]['timeout'] = 0
            listener = Bus._queues[key]['listener']
        # The listener looks when it is woken.
        uri = os.environ['TRYTOND_DATABASE_URI']
        with Wire(f'{uri}/{database}') as wire:
            wire.notify([('bus', payload('stop', {'message_id': None}))])
        listener.join(10)
        assert not listener.is_alive()


def listener_pid(database):
    """Return the process id at PostgreSQL of the connection that listens, None
    while there is none"""
    from trytond.bus import Bus
    queue = Bus._queues.get((os.getpid(), database))
    source = queue and queue['listener']._source
    return source and source._connection.info.backend_pid


def end_listener(postgresql, database):
    """End the connection by which this process listens, and return whether
    there was one"""
    pid = listener_pid(database)
    return bool(pid and postgresql.terminate_backends(f'pid = {pid}'))


def received(database, *channels, last=None):
    "Return all messages that were published to the channels until now"
    mark, = publish(database, channels[0], {'type': MARK})
    messages = []
    while last != mark:
        message, = drain(database, channels, 1, last)
        messages.append(message)
        last = message['message_id']
    return [message for message in messages if message.get('type') != MARK]


def end_polls_at_once():
    """Let polls not wait, called before the first poll, because the
    configuration allows no less than a second"""
    from trytond_fastbus import settings
    settings.long_polling_timeout = lambda: 0


def poll(database, name, count):
    "Poll for this number of channels in turn, none with a message"
    from trytond.bus import Bus
    empty = {'message': None, 'channel': None}
    for number in range(count):
        response = Bus.subscribe(database, [f'{name}:{number}'])
        assert response == empty, response


def statistics(database):
    "Return the trytond_fastbus.statistics of the database"
    import trytond_fastbus
    return trytond_fastbus.statistics()[database]


def cpu():
    "Return the seconds of CPU that this process has used"
    return time.process_time()


def resident():
    "Return the bytes of memory that this process has"
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096


def payload(channel, message):
    "Return the payload of a NOTIFY as trytond makes it"
    from trytond.protocols.jsonrpc import JSONEncoder
    return json.dumps(
        {'channel': channel, 'message': message},
        cls=JSONEncoder, separators=(',', ':'))


class Polls:
    """Clients that wait in threads for one message each, as a context manager.

    results are their responses, errors the raised exceptions.
    """

    def __init__(self, database, channels, count=1, last=None):
        self.results, self.errors = [], []
        self._threads = [
            threading.Thread(
                target=self._poll, args=(database, channels, last),
                daemon=True)
            for _ in range(count)]

    def _poll(self, *args):
        from trytond.bus import Bus
        try:
            self.results.append(Bus.subscribe(*args))
        except BaseException as error:
            self.errors.append(error)

    def join(self, deadline):
        "Wait until all have a response, at most deadline seconds"
        end = time.monotonic() + deadline
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        assert not self.errors, self.errors

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, type, value, traceback):
        if type is None:
            self.join(60)
            assert len(self.results) == len(self._threads)


class Wire:
    "A plain connection to a database, in autocommit, as a context manager"

    def __init__(self, uri):
        try:
            import psycopg as driver
        except ImportError:
            import psycopg2 as driver
        self._connection = driver.connect(uri)
        self._connection.autocommit = True
        self._received = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def execute(self, sql, *args):
        self._connection.cursor().execute(sql, args or None)

    def query(self, sql):
        "Return the first row"
        cursor = self._connection.cursor()
        cursor.execute(sql)
        return cursor.fetchone()

    def listen(self, *channels):
        for channel in channels:
            self.execute(f'LISTEN "{channel}"')
        return self

    def notify(self, notifications):
        "Send each (channel, payload), all in one transaction"
        self.execute('BEGIN')
        for channel, payload in notifications:
            self.execute('SELECT pg_notify(%s, %s)', channel, payload)
        self.execute('COMMIT')

    def receive(self, count, deadline=60):
        "Return the next notifications as pairs of channel and payload"
        end = time.monotonic() + deadline
        self._take()
        while len(self._received) < count:
            left = max(end - time.monotonic(), 0)
            if not select.select([self._connection], [], [], left)[0]:
                raise TimeoutError(
                    f"{len(self._received)} of {count} notifications "
                    f"after {deadline} s")
            self._take()
        received, self._received = (
            self._received[:count], self._received[count:])
        return [(n.channel, n.payload) for n in received]

    def _take(self):
        "Keep the notifications that have arrived, a read of the socket each"
        if callable(self._connection.notifies):
            self._received += self._connection.notifies(timeout=0)
        else:
            self._connection.poll()
            self._received += self._connection.notifies
            del self._connection.notifies[:]
