"""The engine and its clients in virtual time: a scene in, rows, detections and plans out.

Nothing here reads the wall clock, a file or the config; the same scene gives the same result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from client.session import Session, SessionConfig
from experiment import virtual_time
from experiment.emulated_worker import EmulatedWorker
from experiment.link import Link, LinkConfig, VirtualServer
from experiment.stored_source import StoredSource
from jellyfish.charges import Charge, charge, derived_seed
from jellyfish.detections import Detections
from jellyfish.emulation import EmulatedAnswers, LatencyModel, worker_seed
from jellyfish.errors import RunError
from jellyfish.files.clip_detections import ClipDetections
from jellyfish.files.streams import summary
from jellyfish.files.tables import PlanRow
from jellyfish.policy import Policy
from jellyfish.profile import Profile
from jellyfish.records import FrameRow
from jellyfish.scheduling import solvers
from jellyfish.trace import Trace
from server.clients import ClientHandle
from server.engine import Engine
from server.planner import InlinePlanner
from server.settings import EngineConfig

STOP_GRACE_S = 1.5


@dataclass(frozen=True, kw_only=True)
class SceneClient:
    """One client: what it asks for, when it starts, and the uplink that it finds."""

    fps: float
    slo_ms: float
    start_s: float = 0.0
    trace: Trace | None = None  # from the client's start on


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that a simulated run depends on.

    Args:
        clients: who streams.
        clip: name of the clip that all of them show.
        sizes: per DNN, by its input size in px: what it found, and what the clip's frames weigh.
        profile: what scheduler and engine reckon with.
        model: for how long batches occupy a worker.
        policy: how to serve.
        workers: how many.
        seed: of all that is random.
        stream_s: for how long each client streams.
        link: what the network is like.
        engine: limits and intervals.
        in_flight_limit: of each client.
        device_ms: charged from a frame's capture to its sending.
        scheduler_ms, server_ms, hand_over_ms: charged the server for a plan, a frame and a batch.
    """

    clients: tuple[SceneClient, ...]
    clip: str
    sizes: Mapping[int, ClipDetections]
    profile: Profile
    model: LatencyModel
    policy: Policy
    workers: int = 1
    seed: int = 1
    stream_s: float = 140.0
    link: LinkConfig = field(default_factory=LinkConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    in_flight_limit: int = 32
    device_ms: Charge | float = 2.0
    scheduler_ms: Charge | float = 1.0
    server_ms: Charge | float = 0.3
    hand_over_ms: Charge | float = 0.5

    def draws(self, ms: Charge | float, name: str) -> Callable[[], float]:
        """Return what gives one charge of `ms` after the other, those called `name` here."""
        return charge(ms).draws(derived_seed(self.seed, name))


@dataclass(frozen=True)
class Served:
    """What came of a scene: per client its rows and what came back, by tick; and the server's."""

    rows: list[list[FrameRow]]
    detections: list[dict[int, Detections]]
    plans: list[PlanRow]
    summary: dict[str, Any]


def serve(scene: Scene) -> Served:
    """Play `scene` from start to end.

    Raises:
        RunError: a client lost its server.
        RejectedError: the server refuses a client.
        DeadlockError: everybody waits for something that nothing will ever do.
    """
    solvers.warm(scene.policy.solver)
    return virtual_time.run(_serve(scene))


@dataclass
class Kept:
    """What an engine tells for the record, in memory: plans, and clients that have left."""

    plans: list[PlanRow] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)

    def on_left(self, client: ClientHandle) -> None:
        """Take a client that is gone."""
        self.gone.append(client.record())

    def summary(self, engine: Engine) -> dict[str, Any]:
        """Return what `server.json` says."""
        return summary(self.gone, engine.state())


def engine_of(scene: Scene, kept: Kept) -> Engine:
    """Return the engine of `scene`, with emulated workers, on the running loop; not yet started."""
    answers = EmulatedAnswers({scene.clip: scene.sizes})
    workers = [
        EmulatedWorker(
            scene.model,
            answers,
            [int(px) for px in scene.profile.input_px],
            seed=worker_seed(scene.seed, i),
            hand_over_ms=scene.draws(scene.hand_over_ms, f"hand-over {i}"),
        )
        for i in range(scene.workers)
    ]
    charge_ms = scene.draws(scene.scheduler_ms, "scheduler")
    planner = InlinePlanner(scene.policy.solver, charge_ms=charge_ms)
    return Engine(
        scene.profile,
        workers,
        planner,
        scene.policy,
        Random(scene.seed),
        scene.engine,
        on_plan=kept.plans.append,
        on_left=kept.on_left,
    )


def server_of(scene: Scene, engine: Engine) -> VirtualServer:
    """Return the server of `scene` around its engine."""
    return VirtualServer(engine, scene.draws(scene.server_ms, "server"))


def link_of(
    scene: Scene, server: VirtualServer, i: int, trace: Trace | None, start_s: float
) -> Link:
    """Return the link of client `i`, whose trace begins at `start_s` on the loop's clock."""
    return Link(server, scene.link, trace, start_s, derived_seed(scene.seed, f"link {i}"))


async def _serve(scene: Scene) -> Served:
    loop, kept = asyncio.get_running_loop(), Kept()
    engine = engine_of(scene, kept)
    await engine.start()
    server, origin_s = server_of(scene, engine), loop.time()
    starts_s = [origin_s + client.start_s for client in scene.clients]
    source = StoredSource(scene.clip, scene.sizes)
    sessions = [
        Session(_session(scene, i), link_of(scene, server, i, client.trace, starts_s[i]), source)
        for i, client in enumerate(scene.clients)
    ]
    async with asyncio.TaskGroup() as group:
        for i, session in enumerate(sessions):
            group.create_task(_stream(session, starts_s[i]), name=f"client-{i}")
    await engine.stop(STOP_GRACE_S)
    for session, client, start_s in zip(sessions, scene.clients, starts_s, strict=True):
        _add_true_bandwidth(session.rows, client.trace, start_s)
    return Served(
        rows=[session.rows for session in sessions],
        detections=[session.detections for session in sessions],
        plans=kept.plans,
        summary=kept.summary(engine),
    )


async def _stream(session: Session, start_s: float) -> None:
    await asyncio.sleep(start_s - asyncio.get_running_loop().time())
    await session.run()
    if session.gone:
        name = asyncio.current_task()
        raise RunError(f"{name.get_name() if name else 'a client'}: {session.gone}")


def _session(scene: Scene, i: int) -> SessionConfig:
    client = scene.clients[i]
    return SessionConfig(
        client=i,
        name=f"client-{i}",
        fps=client.fps,
        slo_ms=client.slo_ms,
        stream_s=scene.stream_s,
        in_flight_limit=scene.in_flight_limit,
        wire_ms=scene.engine.wire_ms,
        give_up_s=0,
        policy=scene.policy,
        encode_ms=scene.draws(scene.device_ms, f"device {i}"),
    )


def _add_true_bandwidth(rows: list[FrameRow], trace: Trace | None, origin_s: float) -> None:
    if trace is not None:
        for row in rows:
            row.bandwidth_true_kbps = trace.rate_kbps(row.capture_s - origin_s)
