"""Measures the memory of a waiting poll: plain, over TLS, and over HTTP/2.

    python -m benches.tls [POLLS]

Each poll has its own connection, except in the last line, where 100 polls
share one. It needs openssl.
"""
import json
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.nginx import make_certificate

from .programs import build

PREFACE = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'


def question(number):
    "The headers and the body of a poll, of a client and user of its own"
    return [
        ('content-type', 'application/json'),
        ('cookie', 'tryton_session=u:%d:token' % number),
        ], json.dumps({'channels': ['client:%d' % number]}).encode()


def http_1(number):
    headers, body = question(number)
    head = ''.join('%s: %s\r\n' % header for header in headers)
    return ('POST /db/bus HTTP/1.1\r\nhost: localhost\r\n%s'
        'content-length: %d\r\n\r\n' % (head, len(body))).encode() + body


def frame(kind, flags, stream, content=b''):
    return (struct.pack('>I', len(content))[1:]
        + struct.pack('>BBI', kind, flags, stream) + content)


def http_2(number, stream=1):
    "The frames HEADERS, each header as a literal, and DATA"
    headers, body = question(number)
    block = b''
    for name, value in [
            (':method', 'POST'), (':scheme', 'https'),
            (':authority', 'localhost'), (':path', '/db/bus'), *headers]:
        block += b'\0%c%s%c%s' % (
            len(name), name.encode(), len(value), value.encode())
    return frame(1, 4, stream, block) + frame(0, 1, stream, body)


class Server:

    def __init__(self, program, *files):
        self._process = subprocess.Popen(
            [program, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)
        host, port = self._process.stdout.readline().strip().rsplit(':', 1)
        self.address = host, int(port)

    @property
    def waiting(self):
        self._process.stdin.write('waiting\n')
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def memory(self):
        rollup = Path('/proc/%d/smaps_rollup' % self._process.pid).read_text()
        return int(re.search(r'^Pss: *(\d+)', rollup, re.M)[1]) * 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


def measure(server, polls, protocol=None, streams=1):
    before = server.memory
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocol:
        context.set_alpn_protocols([protocol])
    connections = []
    for first in range(0, polls, streams):
        connection = socket.create_connection(server.address)
        if protocol:
            connection = context.wrap_socket(connection)
            assert connection.selected_alpn_protocol() == protocol
        if protocol == 'h2':
            connection.sendall(PREFACE + frame(4, 0, 0) + b''.join(
                    http_2(first + index, 2 * index + 1)
                    for index in range(streams)))
        else:
            connection.sendall(http_1(first))
        connections.append(connection)
    end = time.monotonic() + 60
    while server.waiting != polls:
        assert time.monotonic() < end, server.waiting
        time.sleep(.05)
    time.sleep(1)
    return (server.memory - before) / polls


def main(polls=2000):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    program = build() / 'bus-server'
    with tempfile.TemporaryDirectory() as directory:
        files = make_certificate(Path(directory))
        for name, arguments, *call in [
                ("plain", []), ("TLS", files, 'http/1.1'),
                ("HTTP/2", files, 'h2'),
                ("HTTP/2, 100 a connection", files, 'h2', 100)]:
            with Server(program, *arguments) as server:
                print("%-26s%8.0f bytes a poll" % (
                        name, measure(server, polls, *call)), flush=True)


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
