"""A TCP proxy that can freeze and cut connections.

It has its own process, so that nothing that the tests do to theirs (a lock
that is held, gevent's patches) stops it.
"""
import asyncio
import os
import socket
import struct
import subprocess
import sys
from itertools import chain
from pathlib import Path

from .postgresql import free_port


class Proxy:
    "A proxy to a port of 127.0.0.1, as a context manager"

    def __init__(self, target):
        self.target = target
        self.port = free_port()

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'support.proxy', str(self.port),
                str(self.target)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            bufsize=1, cwd=Path(__file__).parents[1])
        self._process.stdout.readline()
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, command):
        self._process.stdin.write(command + '\n')
        return int(self._process.stdout.readline())

    def freeze(self):
        "Forward nothing, keep the connections and accept new ones"
        self._ask('freeze')

    def thaw(self):
        "Forward again, first the data that arrived in between"
        self._ask('thaw')

    def cut(self):
        "Reset all connections and return their number"
        return self._ask('cut')

    @property
    def connections(self):
        "The number of open connections"
        return self._ask('count')


async def serve(port, target):
    "Obey the commands of the standard input, one a line, until it ends"
    running = asyncio.Event()
    running.set()
    connections = []

    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                await running.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connect(reader, writer):
        connections.append(connection := [writer])
        try:
            await running.wait()
            target_reader, target_writer = await asyncio.open_connection(
                '127.0.0.1', target)
            connection.append(target_writer)
            await asyncio.gather(
                pump(reader, target_writer), pump(target_reader, writer))
        except OSError:
            pass  # nothing listens behind
        finally:
            connections.remove(connection)
            writer.close()

    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await asyncio.start_server(connect, '127.0.0.1', port)
    print(0, flush=True)
    while command := (await commands.readline()).decode().strip():
        count = len(connections)
        if command == 'freeze':
            running.clear()
        elif command == 'thaw':
            running.set()
        elif command == 'cut':
            for writer in chain.from_iterable(connections):
                # Without lingering it is closed by a reset
                try:
                    writer.get_extra_info('socket').setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER,
                        struct.pack('ii', 1, 0))
                except OSError:
                    pass  # it was closed by the other end
                writer.transport.abort()
        print(count, flush=True)
    os._exit(0)  # also if threads still wait


if __name__ == '__main__':
    asyncio.run(serve(*map(int, sys.argv[1:])))
