"""TCP relays whose links are those of the simulation: the same queues, traces and shares."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc

from jellyfish.trace import Trace
from tests.chaos.channel import WINDOW
from tests.chaos.link import Direction, Link

CHUNK_BYTES = 1 << 13


class Clock:
    """As much of a loop as strikes and links need; its time is 0 when a script begins.

    Args:
        zero_s: that moment, on the running loop.
        stop_server_for: stops the server's process for some seconds.
    """

    def __init__(self, zero_s: float, stop_server_for: Callable[[float], None]) -> None:
        self._loop, self.zero_s = asyncio.get_running_loop(), zero_s
        self.stop_server_for = stop_server_for

    def time(self) -> float:
        return self._loop.time() - self.zero_s

    def stall(self, for_s: float) -> None:
        """Have the server stand still; it does not take this loop along."""
        self.stop_server_for(for_s)

    def call_at(self, at_s: float, callback: Callable[..., Any], *args: Any) -> Any:
        return self._loop.call_at(at_s + self.zero_s, callback, *args)

    def call_later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> Any:
        return self._loop.call_later(delay_s, callback, *args)

    def create_task(self, work: Any, name: str | None = None) -> Any:
        return self._loop.create_task(work, name=name)


class Wire:
    """One connection through a link."""

    def __init__(self, link: Link, target: str) -> None:
        self.link, self.target = link, target
        self.ends: list[asyncio.StreamWriter] = []
        self._held = {id(link.up): 0, id(link.down): 0}  # bytes that wait for the link
        self._news = asyncio.Event()

    def reset(self) -> None:
        """Break: what is under way is lost."""
        for direction in (self.link.up, self.link.down):
            direction.drop(self)
        for end in self.ends:
            end.transport.abort()

    async def carry(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Carry bytes one way until the source ends, a window of them at a time."""
        key = id(direction)
        while True:
            while self._held[key] >= WINDOW:
                self._news.clear()
                await self._news.wait()
            if direction is self.link.down and not self.link.window_open:
                opened = asyncio.Event()
                self.link.when_open(opened.set)
                await opened.wait()
                continue
            try:
                chunk = await source.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            self._held[key] += len(chunk)
            direction.send(len(chunk), partial(self._deliver, to, chunk, key), self)
            if not chunk:
                return

    def _deliver(self, to: asyncio.StreamWriter, chunk: bytes, key: int) -> None:
        self._held[key] -= len(chunk)
        self._news.set()
        if chunk:
            to.write(chunk)
        else:
            to.close()


class Wires:
    """The network: a relay for each link; see tests.chaos.channel.Network."""

    def __init__(self, clock: Clock, target: int) -> None:
        self._clock, self._target = clock, target
        self.links: dict[str, Link] = {}
        self.connections: set[Wire] = set()
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Task[asyncio.Server]] = []

    def add(self, name: str, trace: Trace, delay_s: float) -> Link:
        """Have a link of that name, and listen for its client."""
        link = self.links[name] = Link(self._clock, trace, delay_s)  # type: ignore[arg-type]
        accept = partial(self._accept, name, f"127.0.1.{len(self.links) % 250}")
        listening = socket.create_server(("127.0.0.1", 0))
        self.ports[name] = listening.getsockname()[1]
        serve = asyncio.start_server(accept, sock=listening, limit=CHUNK_BYTES)
        self._servers.append(asyncio.ensure_future(serve))
        return link

    def channel(self, name: str) -> grpc.aio.Channel:
        """Return a channel over that link."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        options.append(("grpc.max_send_message_length", 64 << 20))
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.ports[name]}", options=options)

    async def close(self) -> None:
        """Break all connections and listen no more."""
        for server in self._servers:
            (await server).close()
        for wire in list(self.connections):
            wire.reset()

    async def _accept(
        self, name: str, source: str, near: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        wire = Wire(self.links[name], name)
        wire.ends.append(back)
        try:
            far, forth = await asyncio.open_connection(
                "127.0.0.1", self._target, local_addr=(source, 0), limit=CHUNK_BYTES
            )
        except OSError:
            back.transport.abort()  # as a server that is not there does
            return
        wire.ends.append(forth)
        self.connections.add(wire)
        up = wire.carry(near, forth, wire.link.up)
        down = wire.carry(far, back, wire.link.down)
        tasks = [asyncio.ensure_future(way) for way in (up, down)]
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)
        for task in tasks:
            task.cancel()
        self.connections.discard(wire)
