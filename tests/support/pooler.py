"""A pooler that loses notifications, as PgBouncer does in the mode
'transaction': they come on a connection that no client has by then."""
import socket
import threading


class Pooler:
    "A proxy to a port of 127.0.0.1 where PostgreSQL is, as a context manager"

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        try:
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(
                    ('127.0.0.1', self._target))
                self._start(self._pass, client, server)
                self._start(self._filter, server, client)
        except OSError:
            pass  # it is closed

    def _start(self, function, *args):
        threading.Thread(target=function, args=args, daemon=True).start()

    def _pass(self, source, target):
        with source, target:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side has closed it

    def _filter(self, source, target):
        has_begun = False
        with source, target, source.makefile('rb') as messages:
            try:
                while head := messages.read(1):
                    has_begun |= head != b'N'
                    if not has_begun:
                        # That there is no encryption, in one byte
                        target.sendall(head)
                        continue
                    length = messages.read(4)
                    body = messages.read(int.from_bytes(length, 'big') - 4)
                    if head != b'A':
                        target.sendall(head + length + body)
                target.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
