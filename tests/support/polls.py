"""Many long polls at a time, in one thread."""
import json
import selectors
import socket
import time


class Polls:
    """A poll for each of the channels, on its own connection, as a context
    manager.

    headers are those of the request, as a dictionary.
    """

    def __init__(self, port, database, headers, channels):
        self.answers = []
        self.failures = []
        self._selector = selectors.DefaultSelector()
        self._sockets = {}
        self._head = ''.join(
            f'{name}: {value}\r\n' for name, value in headers.items())
        self._target = port, database
        for channel in channels:
            self.poll(channel)

    def poll(self, channel, last=None):
        "Begin a poll"
        port, database = self._target
        connection = socket.create_connection(('127.0.0.1', port))
        body = json.dumps({'last_message': last, 'channels': [channel]})
        connection.sendall((
                f'POST /{database}/bus HTTP/1.1\r\nHost: bus\r\n{self._head}'
                f'Content-Length: {len(body)}\r\n\r\n{body}').encode())
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._sockets[connection] = (channel, bytearray())

    def wait(self, number, deadline=30):
        "Wait until this number of polls were answered or failed"
        end = time.monotonic() + deadline
        while len(self.answers) + len(self.failures) < number:
            left = end - time.monotonic()
            if left < 0:
                raise TimeoutError(
                    f"{len(self.answers)} of {number} polls were answered")
            self.look(left)

    def look(self, seconds=0):
        "Take the answers that arrive within the time"
        for key, _ in self._selector.select(seconds):
            channel, received = self._sockets[key.fileobj]
            try:
                data = key.fileobj.recv(65536)
            except OSError:
                data = b''
            received += data
            head, separator, body = received.partition(b'\r\n\r\n')
            if data and not (separator and len(body) >= _length(head)):
                continue
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
            del self._sockets[key.fileobj]
            if data:
                status = int(head.split()[1])
                answer = json.loads(body) if status == 200 else None
                self.answers.append((channel, status, answer, head.decode()))
            else:
                self.failures.append(channel)

    @property
    def waiting(self):
        return len(self._sockets)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self._sockets:
            connection.close()
        self._selector.close()


def _length(head):
    for line in head.lower().split(b'\r\n'):
        name, _, value = line.partition(b':')
        if name == b'content-length':
            return int(value)
    return 0
