"""An engine with emulated workers in the event loop, and cameras that feed it: for virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import Any

import numpy as np

from experiment.virtual_serving import Kept
from jellyfish.detections import Detections
from jellyfish.errors import DeviceError
from jellyfish.files.tables import PlanRow
from jellyfish.messages import Ack, Answer, Event, Frame
from jellyfish.policy import policy
from jellyfish.profile import Profile
from jellyfish.records import Outcome
from server.clients import ClientHandle
from server.engine import Engine, HealthListener
from server.planner import InlinePlanner, Planner
from server.settings import EngineConfig
from server.worker import BatchResult, WorkerDied, WorkerFrame

NO_JPEG = b"no jpeg"


def profile(scale: float = 1.0) -> Profile:
    """Four DNNs, batch sizes 1 to 4; one frame takes 5 to 35 ms (times `scale`)."""
    base = np.array([5.0, 10.0, 20.0, 35.0])[:, None]
    return Profile(
        input_px=[128, 256, 384, 512],
        frame_bytes=[3_000, 9_000, 17_000, 27_000],
        accuracy=[0.3, 0.5, 0.7, 0.8],
        latency_ms=scale * base * np.array([1.0, 1.4, 1.8, 2.2]),
    )


@dataclass
class LoopWorker:
    """Sleeps the profiled latency. `die`, `hang` and `fail_loads` are its faults."""

    profile: Profile
    load_s: float = 0.2
    share: float = 1.0  # of the profiled latency
    alive: bool = False
    hang: bool = False
    fail_loads: set[int] = field(default_factory=set)
    fail_starts: int = 0
    loaded: set[int] = field(default_factory=set)
    most_loaded: int = 0
    starts: int = 0
    batches: list[tuple[int, int]] = field(default_factory=list)  # (dnn, frames)
    padded: set[int | None] = field(default_factory=set)
    _death: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: bool = False

    def die(self) -> None:
        self.alive = False
        self.loaded.clear()
        self._death.set()

    async def start(self) -> None:
        if self.fail_starts:
            self.fail_starts -= 1
            raise DeviceError("no device")
        self.starts += 1
        self._death = asyncio.Event()
        self.alive, self.hang, self._busy = True, False, False

    async def load(self, dnn: int) -> None:
        await self._spend(self.load_s)
        if dnn in self.fail_loads:
            raise DeviceError("out of memory")
        self.loaded.add(dnn)
        self.most_loaded = max(self.most_loaded, len(self.loaded))

    async def ping(self) -> None:
        await self._spend(1e6 if self.hang else 0.001)

    async def evict(self, dnn: int) -> None:
        await self._spend(0.001)
        self.loaded.discard(dnn)

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        assert dnn in self.loaded, f"DNN {dnn} is not loaded"
        assert not self._busy, "one batch at a time"
        self._busy = True
        size = max(len(frames), pad_to or 0)
        latency_ms = float(self.profile.latency_ms[dnn, size - 1]) * self.share
        try:
            await self._spend(1e6 if self.hang else latency_ms / 1000)
        finally:
            self._busy = False
        self.batches.append((dnn, len(frames)))
        self.padded.add(pad_to)
        answers = [_answer(frame) for frame in frames]
        return BatchResult(tuple(answers), 0.0, latency_ms, latency_ms)

    async def close(self) -> None:
        self.die()

    async def _spend(self, seconds: float) -> None:
        if not self.alive:
            raise WorkerDied("dead")
        try:
            async with asyncio.timeout(seconds):
                await self._death.wait()
        except TimeoutError:
            return
        raise WorkerDied("it died")


def _answer(frame: WorkerFrame) -> Detections | str:
    if frame.image.startswith(NO_JPEG):
        return "no JPEG"
    return Detections(
        boxes=np.array([[0.1, 0.1, 0.2, 0.2]], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.array([0], np.int32),
    )


@dataclass
class Camera:
    """An open-loop client: sends a frame of the size it was told at every tick."""

    engine: Engine
    name: str
    fps: float
    slo_ms: float
    kbps: float = 50_000.0
    image: bytes = b"jpeg"
    device_ms: float = 0.5
    acks: list[int] = field(default_factory=list)
    answers: dict[int, list[Answer]] = field(default_factory=dict)
    sent_s: dict[int, float] = field(default_factory=dict)
    late: int = 0
    sent: int = 0
    px: int = 128
    handle: ClientHandle | None = None

    def join(self) -> Camera:
        self.handle = self.engine.join(self.name, self.fps, self.slo_ms, self.deliver)
        return self

    def deliver(self, event: Event) -> None:
        if isinstance(event, Ack):
            self.acks.append(event.id)
        elif isinstance(event, Answer):
            now = asyncio.get_running_loop().time()
            self.answers.setdefault(event.id, []).append(event)
            self.px = event.next_px
            if (now - self.sent_s[event.id]) * 1000 > self.slo_ms:
                self.late += 1

    def send(self, image: bytes | None = None) -> int:
        assert self.handle is not None
        frame_id, self.sent = self.sent, self.sent + 1
        self.sent_s[frame_id] = asyncio.get_running_loop().time()
        weight = {128: 3_000, 256: 9_000, 384: 17_000, 512: 27_000}[self.px]
        body = (image or self.image).ljust(weight)
        self.engine.submit(
            self.handle, Frame(frame_id, b"t", body, self.px, self.kbps, self.device_ms)
        )
        return frame_id

    async def stream(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for k in range(ceil(seconds * self.fps)):
            await asyncio.sleep(max(0.0, start_s + k / self.fps - loop.time()))
            self.send()

    def outcomes(self) -> dict[Outcome, int]:
        found: dict[Outcome, int] = {}
        for answers in self.answers.values():
            for answer in answers:
                found[answer.outcome] = found.get(answer.outcome, 0) + 1
        return found

    def reasons(self) -> set[str]:
        return {a.reason for answers in self.answers.values() for a in answers}

    def check_one_answer_each(self) -> None:
        assert sorted(self.acks) == list(range(self.sent))
        assert sorted(self.answers) == list(range(self.sent))
        assert all(len(answers) == 1 for answers in self.answers.values())


class KeepingEngine(Engine):
    """An engine that keeps what it tells for the record."""

    def __init__(self, kept: Kept, *args: Any) -> None:
        self.kept = kept
        super().__init__(*args, on_plan=kept.plans.append, on_left=kept.on_left)

    @property
    def plans(self) -> list[PlanRow]:
        return self.kept.plans

    def summary(self) -> dict[str, Any]:
        return self.kept.summary(self)


async def engine_of(
    workers: Sequence[LoopWorker],
    *,
    policy_name: str = "jellyfish",
    planner: Planner | None = None,
    config: EngineConfig | None = None,
    on_health: HealthListener | None = None,
    seed: int = 1,
    kept: Kept | None = None,
) -> KeepingEngine:
    """Return a started engine."""
    engine = KeepingEngine(
        kept or Kept(),
        workers[0].profile,
        workers,
        planner or InlinePlanner("paper", charge_ms=10, iterations=60),
        policy(policy_name),
        Random(seed),
        config or EngineConfig(cached_dnns=3),
        on_health,
    )
    await engine.start()
    return engine
