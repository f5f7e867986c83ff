"""The clients of benchmarks.data_path: at full speed, paced, and one that wants one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import cv2
import grpc
import numpy as np

from benchmarks.data_path_servers import Served
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from tests.simulated import FRAMES

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone
SLO_MS, KBPS = 1000.0, 1e7  # nothing is to be late, and no network is in the way
MOST_FAILED = 0.01  # of the frames: more, and something else was measured
WARM_S, PATIENCE_S = 1.0, 20.0  # without a failure before anything counts, and how long for it


@dataclass(frozen=True)
class Load:
    """Clients that are alike, and for how long they are looked at.

    Args:
        clients: how many, each with a connection of its own.
        fps: that they register with, and send when paced.
        px: side of their frames.
        image: each frame.
        seconds: that are measured.
    """

    clients: int
    fps: float
    px: int
    image: bytes
    seconds: float


@dataclass
class Client:
    """A client, and what it has been answered.

    `beyond_ms`: of each frame, from its sending to its result, without what the DNN took.
    """

    call: Any
    image: bytes
    px: int
    beyond_ms: list[float] = field(default_factory=list)
    failed: int = 0
    _sent_s: dict[int, float] = field(default_factory=dict)

    async def send(self, k: int) -> None:
        """Send frame `k`."""
        tag = b"clip:%d" % (k % FRAMES)
        frame = pb.Frame(id=k, tag=tag, image=self.image, px=self.px, bandwidth_kbps=KBPS)
        self._sent_s[k] = time.perf_counter()
        await self.call.write(frame)

    async def result(self) -> None:
        """Wait for a result, passing over all else."""
        while (message := await self.call.read()) is not EOF:
            if message.WhichOneof("kind") == "result":
                result = message.result
                took_ms = (time.perf_counter() - self._sent_s.pop(result.id)) * 1000
                self.beyond_ms.append(took_ms - result.stages.execute_ms)
                self.failed += result.outcome != pb.OUTCOME_OK
                return
        raise SystemExit("the server has ended a stream")

    def forget(self) -> None:
        """Count anew: before a plan has the client in it, frames are not served."""
        self.beyond_ms.clear()
        self.failed = 0


def jpeg(px: int, most: int) -> bytes:
    """Return a JPEG of noise, `px` x `px`, of at most `most` bytes and hardly fewer."""
    noise = np.random.default_rng(1).integers(0, 256, (px, px, 3), np.uint8)
    tries = (cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, q])[1] for q in range(1, 96))
    return max((image.tobytes() for image in tries if image.size <= most), key=len)


@asynccontextmanager
async def joined(served: Served, load: Load) -> AsyncIterator[list[Client]]:
    """Have the clients join; they leave at the end."""
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(load.clients):
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{served.port}", options=[("grpc.use_local_subchannel_pool", 1)]
            )
            stub: Any = JellyfishStub(await stack.enter_async_context(channel))
            request = pb.RegisterRequest(name=f"client {number}", fps=load.fps, slo_ms=SLO_MS)
            token = (await stub.Register(request)).token
            call = stub.Stream(metadata=(("jellyfish-token", token),))
            stack.callback(call.cancel)
            clients.append(Client(call, load.image, load.px))
        yield clients


@dataclass(frozen=True)
class Speed:
    """Frames/s in all; CPU time for each of the server's process, and of its children and us."""

    fps: float
    cpu_us: float
    beside_us: float


async def full_speed(served: Served, load: Load, window: int) -> Speed:
    """Keep `window` frames of each client under way."""
    async with joined(served, load) as clients:
        tasks = [asyncio.create_task(_closed_loop(client, window)) for client in clients]
        await _warm(clients, tasks, min(load.seconds, WARM_S))
        begin_s, cpu_s, beside_s = time.perf_counter(), served.cpu_s, _beside_s(served)
        await _running(tasks, load.seconds)
        frames, took_s = _answered(clients), time.perf_counter() - begin_s
        cpu_s, beside_s = served.cpu_s - cpu_s, _beside_s(served) - beside_s
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    per_us = 1e6 / max(1, frames)
    return Speed(frames / took_s, cpu_s * per_us, beside_s * per_us)


def _beside_s(served: Served) -> float:
    return served.children_cpu_s + time.process_time()


async def paced(served: Served, load: Load) -> float:
    """Send at the load's rate; return the median ms of a frame beyond what its DNN takes."""
    warm, fps = round(min(load.seconds, WARM_S) * load.fps), load.fps
    async with joined(served, load) as clients:
        begin_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for i, client in enumerate(clients):
                frames = warm + round(load.seconds * fps)
                group.create_task(_open_loop(client, begin_s + i / fps / load.clients, fps, frames))
        _answered(clients)
    return median(ms for client in clients for ms in client.beyond_ms[warm:])


async def first_answer(served: Served, load: Load) -> float:
    """Return how many s after its start the server has answered a client's first frame."""
    async with joined(served, load) as clients:
        await clients[0].send(0)
        await clients[0].result()
        _answered(clients)
    return time.monotonic() - served.started_s


async def _closed_loop(client: Client, window: int) -> None:
    for k in range(window):
        await client.send(k)
    while True:
        await client.result()
        k += 1
        await client.send(k)


async def _open_loop(client: Client, start_s: float, fps: float, frames: int) -> None:
    async def listen() -> None:
        for _ in range(frames):
            await client.result()

    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        for k in range(frames):
            await asyncio.sleep(start_s + k / fps - loop.time())
            await client.send(k)


async def _warm(clients: list[Client], tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Let the load run until all has been served for so long; then count anew."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        for client in clients:
            client.forget()
        await _running(tasks, seconds)
        if all(client.beyond_ms and not client.failed for client in clients):
            break
    for client in clients:
        client.forget()


async def _running(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def _answered(clients: list[Client]) -> int:
    """Return how many frames were answered; nearly all of them must have been served."""
    frames = sum(len(client.beyond_ms) for client in clients)
    failed = sum(client.failed for client in clients)
    if not frames or failed > MOST_FAILED * frames:
        raise SystemExit(f"{failed} of {frames} frames were not served: nothing can be said")
    return frames
