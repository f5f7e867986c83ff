"""Pickled messages over a socket pair between a process and its child.

The server's end never blocks, so a child that stopped reading cannot stall the event loop; the
child's end does nothing but block. Both ends are ours, which is what makes pickles acceptable.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

HEADER = struct.Struct("!Q")
CHUNK = 1 << 18


def pack(message: Any) -> bytes:
    """Return `message` as it goes over the socket: its length, then its pickle."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(data)) + data


class Unpacker:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the pickles that `data` completes."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield message


class LoopPipe:
    """The end in an event loop: messages come to a callback, and sending never waits.

    Args:
        sock: one end of a socket pair; the pipe closes it.
        on_message: called in the loop with each message.
        on_end: called in the loop when the other end has closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[Any], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop, self._socket = loop, sock
        self._on_message, self._on_end = on_message, on_end
        self._unpacker = Unpacker()
        self._outgoing: deque[memoryview] = deque()
        loop.add_reader(sock.fileno(), self.read)

    def send(self, message: Any) -> None:
        """Send `message`, later where the child does not read now; nothing once it has gone."""
        if self._socket.fileno() < 0:
            return
        waiting = bool(self._outgoing)
        self._outgoing.append(memoryview(pack(message)))
        if not waiting:
            self._write()

    def read(self) -> None:
        """Take in what has arrived."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(CHUNK)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self._end()
                return
            for message in self._unpacker.feed(data):
                self._on_message(pickle.loads(message))

    def close(self) -> None:
        """Close the socket; what was not sent is not sent any more."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._outgoing.clear()
        self._socket.close()

    def _end(self) -> None:
        self.close()
        self._on_end()

    def _write(self) -> None:
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing[0])
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except ConnectionError:
                self._end()
                return
            rest = self._outgoing.popleft()[sent:]
            if rest:
                self._outgoing.appendleft(rest)
        self._loop.remove_writer(self._socket.fileno())


class BlockingPipe:
    """The end in the child; several threads may send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send `message`."""
        data = pack(message)
        with self._lock:
            self._socket.sendall(data)

    def messages(self) -> Iterator[bytes]:
        """Yield the pickle of each message until the other end closes."""
        unpacker = Unpacker()
        while data := self._socket.recv(CHUNK):
            yield from unpacker.feed(data)
