"""Socket pairs on the virtual-time loop, as far as server.pipe uses them.

Bytes written at one end can be read at the other; the buffer in between is bounded, a write may
take only part of what it is given, and whoever waits for a socket is called as long as it is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from experiment.virtual_time import VirtualTimeLoop

BUFFER = 212_992  # bytes in flight each way: what Linux gives a pair


class SimSocket:
    """One end; see `pair`."""

    def __init__(self, loop: VirtualTimeLoop, rng: Random) -> None:
        self._loop, self._rng = loop, rng
        self._fd = loop.register(self)
        self._peer: SimSocket | None = None
        self._arrived = bytearray()
        self._ended = False  # the other end has closed
        self._reader: Callable[[], object] | None = None
        self._writer: Callable[[], object] | None = None
        self._reading = self._writing = False  # a call is scheduled

    def fileno(self) -> int:
        return self._fd

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def recv_into(self, space: memoryview) -> int:
        if not self._arrived:
            if self._ended:
                return 0
            raise BlockingIOError
        size = min(len(space), len(self._arrived))
        space[:size] = self._arrived[:size]
        del self._arrived[:size]
        if self._peer is not None:
            self._peer._wake_writer()
        return size

    def sendmsg(self, parts: Sequence[memoryview]) -> int:
        data = b"".join(parts)
        peer = self._peer
        if peer is None or self._ended:
            raise BrokenPipeError
        room = BUFFER - len(peer._arrived)
        if room <= 0:
            raise BlockingIOError
        size = min(len(data), room)
        if size > 1 and self._rng.random() < 0.2:
            size = self._rng.randint(1, size)
        peer._arrived += data[:size]
        peer._wake_reader()
        return size

    def close(self) -> None:
        self._fd = -1
        self._reader = self._writer = None
        peer, self._peer = self._peer, None
        if peer is not None:
            peer._peer, peer._ended = None, True
            peer._wake_reader()
            peer._wake_writer()

    # The loop's side

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        self._reader = callback
        self._wake_reader()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        self._writer = callback
        self._wake_writer()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reading and (self._arrived or self._ended):
            self._reading = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading = False
        if self._reader is not None:
            self._reader()
            self._wake_reader()  # as a selector would, while anything is left

    def _wake_writer(self) -> None:
        room = self._ended or (self._peer is not None and len(self._peer._arrived) < BUFFER)
        if self._writer is not None and not self._writing and room:
            self._writing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        if self._writer is not None:
            self._writer()
            self._wake_writer()


def pair(loop: VirtualTimeLoop, rng: Random) -> tuple[SimSocket, SimSocket]:
    """Return two sockets that are connected."""
    one, other = SimSocket(loop, rng), SimSocket(loop, rng)
    one._peer, other._peer = other, one
    return one, other
