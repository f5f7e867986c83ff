"""What an engine is asked and says, seen from outside: frames in, answers out, plans adopted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from experiment.virtual_time import VirtualTimeLoop
from jellyfish.messages import Answer
from jellyfish.profile import Profile
from jellyfish.scheduling.problem import Plan
from server.clients import QUIET_FRAMES, QUIET_S
from server.engine import Engine

PLANNED_S = 1.5  # a plan is made of what was known so long before, at most


@dataclass
class Seen:
    """One client's frames: when each came and was answered, by id; several where ids repeat."""

    name: str
    fps: float
    slo_ms: float
    joined_s: float
    asked: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    told: dict[int, list[tuple[float, Answer]]] = field(default_factory=lambda: defaultdict(list))
    heard_s: float = float("-inf")  # when its last frame came
    held: int = 0  # bytes of its frames without an answer
    left_s: float = float("inf")
    put_out: str = ""  # why, if so


class EngineSpy:
    """Notes all that goes in and out of an engine.

    Attributes:
        seen: per client that joined, in order.
        bad_plans: what was wrong with adopted plans.
        held, most_held: bytes of frames without an answer, now and at most.
        most_of_one: the same of one client, at most.
        gone_work: frames of clients that had left, and still waited for a GPU.
        ghosts: clients that were planned for long after they had fallen silent.
        fewest_gpus: that an adopted plan was for.
        planned_s: when a plan was adopted last.
    """

    def __init__(self, engine: Engine, loop: VirtualTimeLoop, profile: Profile) -> None:
        self.seen: list[Seen] = []
        self.bad_plans: list[str] = []
        self.held = self.most_held = self.most_of_one = 0
        self.gone_work: list[str] = []
        self.ghosts: list[str] = []
        self._engine = engine
        self.fewest_gpus = inf
        self.planned_s = -inf
        self._loop, self._profile = loop, profile
        self._of: dict[int, Seen] = {}
        self._join, self._submit, self._leave = engine.join, engine.submit, engine.leave
        self._refuse = engine.refuse
        engine.refuse = self.refuse  # type: ignore[method-assign]
        self._adopt = engine._planning._adopt
        engine.join = self.join  # type: ignore[method-assign]
        engine.submit = self.submit  # type: ignore[method-assign]
        engine.leave = self.leave  # type: ignore[method-assign]
        engine._planning._adopt = self.adopt

    def join(self, name: str, fps: float, slo_ms: float, deliver: Any, put_out: Any = None) -> Any:
        seen = Seen(name, fps, slo_ms, self._loop.time())

        def told(event: Any) -> None:
            if isinstance(event, Answer):
                self._answered(seen, event)
            deliver(event)

        client = self._join(name, fps, slo_ms, told, partial(self._put_out, seen, put_out))
        self.seen.append(seen)
        self._of[client.number] = seen
        return client

    def _put_out(self, seen: Seen, put_out: Any, reason: str) -> None:
        seen.put_out = reason
        if put_out is not None:
            put_out(reason)

    def submit(self, client: Any, frame: Any) -> Any:
        size = 0 if client.gone else len(frame.image)
        if not client.gone:
            seen, now_s = self._of[client.number], self._loop.time()
            seen.asked[frame.id].append((now_s, size))
            seen.heard_s = now_s
            seen.held += size
            self.most_of_one = max(self.most_of_one, seen.held)
        self.held += size
        self.most_held = max(self.most_held, self.held)
        return self._submit(client, frame)

    def refuse(self, client: Any, frame_id: int, reason: str) -> Any:
        if not client.gone:
            self._of[client.number].asked[frame_id].append((self._loop.time(), 0))
        return self._refuse(client, frame_id, reason)

    def leave(self, client: Any) -> None:
        seen = self._of[client.number]
        if seen.left_s == float("inf"):
            seen.left_s = self._loop.time()
            for frame, asked in seen.asked.items():
                self.held -= sum(size for _, size in asked[len(seen.told[frame]) :])
        self._leave(client)
        waiting = [p for gpu in self._engine._gpus for p in gpu._queue if p.client is client]
        if waiting:
            self.gone_work.append(f"{seen.name} has left {len(waiting)} frames in a queue")

    def _answered(self, seen: Seen, answer: Answer) -> None:
        asked, told = seen.asked[answer.id], seen.told[answer.id]
        if len(told) < len(asked):
            self.held -= asked[len(told)][1]
            seen.held -= asked[len(told)][1]
        told.append((self._loop.time(), answer))

    def adopt(self, plan: Plan, clients: Any, gpus: Any) -> Any:
        self.fewest_gpus = min(self.fewest_gpus, len(gpus))
        self.planned_s = self._loop.time()
        problem = self._wrong(plan, clients, gpus)
        if problem:
            self.bad_plans.append(f"{problem} at {self._loop.time():.3f} s")
        self._look_for_ghosts(clients)
        return self._adopt(plan, clients, gpus)

    def _look_for_ghosts(self, clients: Any) -> None:
        now_s = self._loop.time()
        for client in clients:
            seen = self._of[client.number]
            silent_s = now_s - max(seen.joined_s, seen.heard_s)
            if silent_s > max(QUIET_S, QUIET_FRAMES / seen.fps) + PLANNED_S:
                self.ghosts.append(f"a plan for {seen.name}, silent for {silent_s:.1f} s")

    def _wrong(self, plan: Plan, clients: Any, gpus: Any) -> str:
        if not isinstance(plan, Plan):
            return f"{plan!r} is no plan"
        if (len(plan.gpus), len(plan.clients)) != (len(gpus), len(clients)):
            return "wrong lengths"
        for g, gpu in enumerate(plan.gpus):
            if gpu is None:
                continue
            if not (
                0 <= gpu.dnn < self._profile.dnns and 1 <= gpu.batch <= self._profile.max_batch
            ):
                return f"GPU {g} runs {gpu}"
            fps = sum(c.fps for c, at in zip(clients, plan.clients, strict=True) if at == g)
            if fps >= self._profile.throughput[gpu.dnn, gpu.batch - 1]:
                return f"GPU {g} gets {fps:g} frames/s"
        for at in plan.clients:
            if at is not None and not (0 <= at < len(gpus) and plan.gpus[at] is not None):
                return f"a client on GPU {at}"
        return ""
