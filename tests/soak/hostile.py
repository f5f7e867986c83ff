"""`python -m tests.soak.hostile KIND PORT SECONDS`: clients that mean ill, for a while.

They come from 127.0.0.2, so that the quota of a peer is theirs alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc

from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from tests.jpeg_files import scan_bomb
from tests.soak.material import INPUT_PX, frames
from tests.soak.relay import Relay

PX = INPUT_PX[-1]
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.enable_http_proxy", 0),
]
GHOSTS = 300
FLOOD_FPS = 500.0  # more would take the core from whoever is honest, not the server's patience
ODD = ("nan", "inf", "-inf", "1e308", "-1e308", "-1", "0")


class Visitor:
    """One stream to the server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = JellyfishStub(channel)
        self._reading: asyncio.Task[None] | None = None
        self.call: Any = None

    async def join(self, fps: float = 10, slo_ms: float = 1000, read: bool = True) -> None:
        name = "hostile\nERROR server: all is lost"
        request = pb.RegisterRequest(name=name, fps=fps, slo_ms=slo_ms, version=1)
        reply = await self._stub.Register(request, timeout=5)
        self.call = self._stub.Stream(metadata=(("jellyfish-token", reply.token),))
        if read:
            self._reading = asyncio.create_task(self._read())

    async def register_only(self) -> None:
        await self._stub.Register(pb.RegisterRequest(name="ghost", fps=10, slo_ms=1000), timeout=5)

    async def send(self, number: int, image: bytes, **fields: Any) -> None:
        frame = {"px": PX, "tag": b"clip:0", "bandwidth_kbps": 5e4, "device_ms": 1.0, **fields}
        await self.call.write(pb.Frame(id=number, image=image, **frame))

    async def _read(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not grpc.aio.EOF:
                pass


class Visit:
    """All that visitors need.

    Args:
        relay: the way to the server, from another address.
    """

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{relay.port}", options=OPTIONS)
        self.image = frames(PX)[0]

    async def visitor(self, **how: Any) -> Visitor:
        made = Visitor(self.channel)
        await made.join(**how)
        return made

    async def floods(self) -> None:
        visitors = [await self.visitor() for _ in range(3)]
        number = 0
        while True:
            for visitor in visitors:
                await visitor.send(number, self.image)
            number += 1
            await asyncio.sleep(len(visitors) / FLOOD_FPS)

    async def repeats_ids(self) -> None:
        visitor = await self.visitor(fps=30)
        while True:
            await visitor.send(7, self.image)
            await asyncio.sleep(1 / 30)

    async def sends_oversize(self) -> None:
        """Send some of the largest that pass, then one that ends the stream."""
        largest = self.image + bytes(2 * PX * PX - len(self.image))
        while True:
            visitor = await self.visitor(fps=30)
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                for number in range(20):
                    await visitor.send(number, largest)
                await visitor.send(20, bytes(4 << 20))
            await asyncio.sleep(0.3)

    async def sends_bombs(self) -> None:
        visitor = await self.visitor(fps=30)
        kinds = [scan_bomb(PX, 16), scan_bomb(PX, 400), scan_bomb(8 * PX, 16), self.image[:-9]]
        number = 0
        while True:
            await visitor.send(number, kinds[number % len(kinds)])
            number += 1
            await asyncio.sleep(1 / 30)

    async def never_reads(self) -> None:
        visitors = [await self.visitor(fps=30, read=False) for _ in range(3)]
        number = 0
        while True:
            for visitor in visitors:
                if not visitor.call.done():
                    await visitor.send(number, b"")
            number += 1
            await asyncio.sleep(0.002)

    async def vanishes(self) -> None:
        visitor = await self.visitor()
        for number in range(5):
            await visitor.send(number, self.image)
        self.relay.cut()
        await asyncio.sleep(3600)

    async def comes_and_goes(self) -> None:
        for _ in range(GHOSTS):
            await (visitor := Visitor(self.channel)).register_only()  # and never stream
        while True:
            visitor = await self.visitor()
            await visitor.send(0, self.image)
            visitor.call.cancel()
            await asyncio.sleep(0.05)

    async def lies(self) -> None:
        visitor = await self.visitor(fps=60, slo_ms=300)
        number = 0
        while True:
            odd = float(ODD[number % len(ODD)])
            sizes = (0, 1, PX + 1, 2**32 - 1)
            fields = {"bandwidth_kbps": odd, "device_ms": odd, "px": sizes[number % 4]}
            await visitor.send(number, self.image, tag=os.urandom(9), **fields)
            number += 1
            await asyncio.sleep(1 / 60)


async def visit(kind: str, port: int, for_s: float) -> None:
    """Behave as `kind` says, whatever the server does about it; then be gone, without a word."""
    relay = Relay(port, source="127.0.0.2")
    await relay.start()
    visit = Visit(relay)
    behave: Callable[[], Awaitable[None]] = getattr(visit, kind.partition(" ")[2].replace(" ", "_"))
    asyncio.get_running_loop().call_later(for_s, os._exit, 0)
    while True:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            await behave()
        await asyncio.sleep(0.2)  # put out, or refused: once more


if __name__ == "__main__":
    asyncio.run(visit(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
