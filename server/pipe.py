"""Pickled messages over a socket pair between a process and its child.

The server's end never blocks and never works long: a child that stopped reading cannot stall the
event loop, and neither can a batch of many MB. Images go beside the pickle, out of their own memory
(PEP 574), a socket's fill at a time. The child's end does nothing but block. Both ends are ours,
which is what makes pickles acceptable.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

log = logging.getLogger(__name__)

HEADER = struct.Struct("!II")  # how many buffers go beside the pickle, and its length
SIZE = struct.Struct("!Q")  # of a buffer: these stand before the pickle
OUT_OF_BAND = 1 << 15  # bytes from which a buffer is not worth copying
PARTS_AT_ONCE, AT_ONCE = 64, 1 << 18  # to the kernel in one go: a fraction of a millisecond
MOST_BYTES = 1 << 30  # of a buffer: more is nonsense

Parts = list[bytearray]  # a message as it arrived: sizes and pickle, then the buffers


def pack(message: Any) -> list[memoryview]:
    """Return `message` as it goes over the socket: header, sizes, pickle, then its buffers."""
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True  # into the pickle
        buffers.append(raw)
        return False

    data = pickle.dumps(message, protocol=5, buffer_callback=keep)
    sizes = b"".join(SIZE.pack(buffer.nbytes) for buffer in buffers)
    head = HEADER.pack(len(buffers), len(data)) + sizes + data
    return [memoryview(head), *buffers]


def unpack(parts: Parts) -> Any:
    """Return the message that arrived as `parts`."""
    first, *buffers = parts
    return pickle.loads(memoryview(first)[SIZE.size * len(buffers) :], buffers=buffers)


def _space(size: int) -> bytearray:
    if not 0 < size <= MOST_BYTES:
        raise ValueError(f"a buffer of {size} bytes")
    return bytearray(size)


class Unpacker:
    """Cuts a stream of bytes into messages, each read to where it stays."""

    def __init__(self) -> None:
        self._done: Parts | None = None
        self._buffers = self._in_turn()
        self._space = memoryview(next(self._buffers))

    def space(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        return self._space

    def took(self, count: int) -> Parts | None:
        """Note that `count` bytes have come to `space()`; return the message they complete.

        Raises:
            ValueError: they announce a message that nobody sends.
        """
        self._space = self._space[count:]
        if self._space:
            return None
        self._space = memoryview(next(self._buffers))
        done, self._done = self._done, None
        return done

    def _in_turn(self) -> Iterator[bytearray]:
        while True:
            head = bytearray(HEADER.size)
            yield head
            count, length = HEADER.unpack(head)
            parts = [_space(SIZE.size * count + length)]
            yield parts[0]
            for (size,) in SIZE.iter_unpack(memoryview(parts[0])[: SIZE.size * count]):
                parts.append(_space(size))
                yield parts[-1]
            self._done = parts


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
        """Send `message`, later where the child does not read now; nothing once it has gone.

        Its large buffers are read until they are sent: they must not change meanwhile.
        """
        if self._socket.fileno() < 0:
            return
        waiting = bool(self._outgoing)
        self._outgoing.extend(pack(message))
        if not waiting:
            self._write()

    def read(self) -> None:
        """Take in what has arrived."""
        while self._socket.fileno() >= 0:
            try:
                count = self._socket.recv_into(self._unpacker.space())
            except BlockingIOError:
                return
            except ConnectionError:
                count = 0
            if not count:
                self._end()
                return
            self._take(count)

    def close(self) -> None:
        """Close the socket; what was not sent is not sent any more."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._outgoing.clear()
        self._socket.close()

    def _take(self, count: int) -> None:
        try:
            parts = self._unpacker.took(count)
            message = None if parts is None else unpack(parts)
        except Exception as error:  # what follows cannot be understood, either
            log.error("a child says what is no message, and is given up: %r", error)
            self._end()
            return
        if parts is not None:
            self._on_message(message)

    def _end(self) -> None:
        self.close()
        self._on_end()

    def _write(self, again: bool = False) -> None:
        """Hand over what the socket takes, once; the rest goes when it has room `again`."""
        try:
            sent = self._socket.sendmsg(self._chunk())
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._end()
            return
        while self._outgoing and sent >= len(self._outgoing[0]):
            sent -= len(self._outgoing.popleft())
        if self._outgoing:
            self._outgoing[0] = self._outgoing[0][sent:]
            self._loop.add_writer(self._socket.fileno(), self._write, True)
        elif again:
            self._loop.remove_writer(self._socket.fileno())

    def _chunk(self) -> list[memoryview]:
        chunk, room = [], AT_ONCE
        for part in islice(self._outgoing, PARTS_AT_ONCE):
            chunk.append(part[:room])
            room -= len(chunk[-1])
            if not room:
                break
        return chunk


class BlockingPipe:
    """The end in the child; several threads may send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send `message`; nobody gets it where the other end is gone."""
        data = b"".join(pack(message))
        with self._lock, suppress(ConnectionError):
            self._socket.sendall(data)

    def messages(self) -> Iterator[Parts]:
        """Yield each message, for `unpack`, until the other end closes or is gone."""
        unpacker = Unpacker()
        with suppress(ConnectionError):
            while count := self._socket.recv_into(unpacker.space()):
                parts = unpacker.took(count)
                if parts is not None:
                    yield parts
