"""One engine and its clients in either world, so that one test body runs in both."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Protocol

import grpc

from client.grpc_transport import GrpcTransport
from client.session import Session, SessionConfig
from client.shaping.process import RelayProcess
from client.source import SourceFrame
from client.transport import Transport
from experiment.link import Link
from experiment.stored_source import StoredSource
from experiment.virtual_serving import Kept, Scene, engine_of, link_of, server_of
from jellyfish.emulation import worker_seed
from jellyfish.files.atomic import write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.zoo import read_zoo
from jellyfish.policy import Policy
from jellyfish.protocol.jellyfish_pb2_grpc import add_JellyfishServicer_to_server
from jellyfish.trace import Trace
from server.devices import emulated_spec
from server.engine import Engine
from server.planner import ProcessPlanner
from server.service import Service
from server.worker_process import ProcessWorker
from tests.simulated import INPUT_PX, emulation

ROOT = Path(__file__).resolve().parents[1]


class World(Protocol):
    """Where a behaviour plays."""

    engine: Engine
    kept: Kept

    async def client(
        self, number: int, fps: float, slo_ms: float, stream_s: float, trace: Trace | None = None
    ) -> Session:
        """Return a client that is ready to run."""

    async def vanish(self, number: int) -> None:
        """Take a client's network away, without a word."""

    async def come_back(self, number: int) -> None:
        """Give it back."""


def _session(
    transport: Transport,
    source: StoredSource,
    encode_ms: Callable[[], float],
    serves: Policy,
    **asked: float,
) -> Session:
    number = int(asked.pop("number"))
    config = SessionConfig(
        client=number,
        name=f"client-{number}",
        encode_ms=encode_ms,
        policy=serves,
        **asked,  # type: ignore[arg-type]
    )
    return Session(config, transport, source)


class VirtualWorld:
    """Links in memory and workers in the loop."""

    def __init__(self, scene: Scene, engine: Engine, kept: Kept) -> None:
        self.engine, self.kept, self._scene = engine, kept, scene
        self._server = server_of(scene, engine)
        self._source = StoredSource(scene.clip, scene.sizes)
        self._links: dict[int, Link] = {}

    async def client(
        self, number: int, fps: float, slo_ms: float, stream_s: float, trace: Trace | None = None
    ) -> Session:
        origin_s = asyncio.get_running_loop().time()
        link = link_of(self._scene, self._server, number, trace, origin_s)
        self._links[number] = link
        encode_ms = self._scene.draws(self._scene.device_ms, f"device {number}")
        asked = {"number": number, "fps": fps, "slo_ms": slo_ms, "stream_s": stream_s}
        return _session(link, self._source, encode_ms, self._scene.policy, **asked)

    async def vanish(self, number: int) -> None:
        self._links[number].cut()

    async def come_back(self, number: int) -> None:
        self._links[number].heal()


class FullSource(StoredSource):
    """Frames that really weigh what they weigh."""

    def frame(self, k: int, px: int) -> SourceFrame:
        made = super().frame(k, px)
        return SourceFrame(made.tag, bytes(len(made.image)), made.clip_frame)


class RealWorld:
    """gRPC, worker processes with emulated devices, and a relay a client."""

    def __init__(self, scene: Scene, engine: Engine, kept: Kept, port: int, folder: Path) -> None:
        self.engine, self.kept = engine, kept
        self._scene, self._port, self._folder = scene, port, folder
        self._source = FullSource(scene.clip, scene.sizes)
        self.relays: dict[int, RelayProcess] = {}

    async def client(
        self, number: int, fps: float, slo_ms: float, stream_s: float, trace: Trace | None = None
    ) -> Session:
        path = None
        if trace is not None:
            path = self._folder / f"trace-{number}.json"
            path.write_text(json.dumps({"mbps": trace.mbps, "step_s": trace.step_s}))
        relay = self.relays[number] = RelayProcess(f"127.0.0.1:{self._port}", path, 0.0)
        await relay.start()
        transport = GrpcTransport([f"127.0.0.1:{relay.port}"])
        asked = {"number": number, "fps": fps, "slo_ms": slo_ms, "stream_s": stream_s}
        return _session(transport, self._source, float, self._scene.policy, **asked)

    async def vanish(self, number: int) -> None:
        self.relays[number].signal(signal.SIGSTOP)

    async def come_back(self, number: int) -> None:
        self.relays[number].signal(signal.SIGCONT)


@asynccontextmanager
async def virtual_world(scene: Scene) -> AsyncIterator[World]:
    kept = Kept()
    engine = engine_of(scene, kept)
    await engine.start()
    try:
        yield VirtualWorld(scene, engine, kept)
    finally:
        await engine.stop(1.0)


@asynccontextmanager
async def real_world(scene: Scene, folder: Path) -> AsyncIterator[World]:
    workers = [
        ProcessWorker(
            emulated_spec(
                {"kind": "emulated"},
                read_zoo(ROOT / "config/zoo/yolov3-tiny.yaml"),
                emulation=folder / "emulation.json",
                detections={scene.clip: _stored(scene, folder)},
                seed=worker_seed(scene.seed, i),
                max_batch=scene.profile.max_batch,
                input_px=INPUT_PX,
            ),
            f"worker-{i}",
        )
        for i in range(scene.workers)
    ]
    planner = ProcessPlanner(scene.policy.solver)
    kept = Kept()
    engine = Engine(
        scene.profile,
        workers,
        planner,
        scene.policy,
        Random(scene.seed),
        scene.engine,
        on_plan=kept.plans.append,
        on_left=kept.on_left,
    )
    server, service = grpc.aio.server(), Service(engine)
    add_JellyfishServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    world = RealWorld(scene, engine, kept, port, folder)
    async with AsyncExitStack() as ends:
        ends.push_async_callback(server.stop, 0.5)
        ends.push_async_callback(service.close, 0.5)
        ends.push_async_callback(engine.stop, 1.0)
        await engine.start()
        await server.start()
        yield world
        for relay in world.relays.values():
            relay.signal(signal.SIGCONT)
            await relay.stop()


def _stored(scene: Scene, folder: Path) -> dict[int, Path]:
    write_json(folder / "emulation.json", emulation())
    paths = {px: folder / f"{px}.npz" for px in scene.sizes}
    for px, path in paths.items():
        write_clip_detections(path, scene.sizes[px])
    return paths
