"""A TCP relay within an event loop, whose link can be cut, reset, and slowed to a crawl."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK_BYTES = 1 << 16
UP, DOWN = "up", "down"


class Relay:
    """Listens at a free port of 127.0.0.1 and relays each connection to `target`.

    Args:
        target: port of the server, on 127.0.0.1.
        source: address that connections to it leave from: a peer of its own for the server.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target: int, source: str = "127.0.0.1") -> None:
        self._target, self._source = target, source
        self._open = {way: asyncio.Event() for way in (UP, DOWN)}
        self._mbps: float | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.heal()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, *ways: str) -> None:
        """Let no byte pass that way, without a word to anybody."""
        for way in ways or (UP, DOWN):
            self._open[way].clear()

    def slow(self, mbps: float) -> None:
        """Let so many Mbit/s pass, each way."""
        self._mbps = mbps

    def heal(self) -> None:
        """Let everything pass."""
        self._mbps = None
        for way in self._open.values():
            way.set()

    def reset(self) -> None:
        """Break all connections."""
        for end in list(self._ends):
            end.transport.abort()

    async def close(self) -> None:
        """Break all connections and listen no more."""
        if self._server is not None:
            self._server.close()
        self.heal()
        self.reset()

    async def _relay(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._ends.add(back)
        try:
            far, forth = await asyncio.open_connection(
                "127.0.0.1", self._target, local_addr=(self._source, 0), limit=CHUNK_BYTES
            )
        except OSError:
            back.transport.abort()  # as a server that is not there does
            self._ends.discard(back)
            return
        self._ends.add(forth)
        ways = (self._pass(UP, near, forth), self._pass(DOWN, far, back))
        tasks = [asyncio.ensure_future(way) for way in ways]
        with suppress(asyncio.CancelledError):  # asyncio's servers stumble over it
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (back, forth):
            end.close()
            self._ends.discard(end)

    async def _pass(self, way: str, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                await self._open[way].wait()  # what is not read fills the sender's window
                chunk = await source.read(CHUNK_BYTES if self._mbps is None else 1 << 12)
                if not chunk:
                    return
                await self._open[way].wait()
                if self._mbps is not None:
                    await asyncio.sleep(len(chunk) * 8 / (self._mbps * 1e6))
                to.write(chunk)
                await to.drain()
