"""What a server and its clients hold does not grow with how long they run, nor with who was there.

Twice the same stretch of virtual time (or joins), three times as long the second time: whatever is
kept a plan, a frame or a client would be seen. The slow tests do the same for a day.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from client.session import Session, SessionConfig
from experiment import virtual_time
from experiment.stored_source import StoredSource
from experiment.virtual_serving import Kept, engine_of, link_of, server_of
from jellyfish.scheduling.problem import GpuPlan, Plan, Problem
from server.engine import Engine
from server.settings import EngineConfig
from tests.engine_world import KeepingEngine, LoopWorker, profile
from tests.engine_world import engine_of as engine_on
from tests.simulated import scene

KEPT_BYTES = 64_000  # caches that fill, whatever the length
DAY_S = 86_400


class NoKept(Kept):
    """Keeps the newest alone."""

    def __init__(self) -> None:
        super().__init__(deque(maxlen=1), deque(maxlen=1))  # type: ignore[arg-type]


class Trivial:
    """A planner that maps everybody to the first GPU."""

    async def ready(self) -> None: ...

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        gpus = tuple(GpuPlan(0, 1) for _ in range(problem.gpus))
        return Plan(gpus, (0,) * problem.clients, 1.0, 0.3), 1.0

    async def close(self) -> None: ...


def traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def rss() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def grown(spend: Callable[[int], Awaitable[None]], length: int) -> int:
    """Return by how many bytes three times `length` grow what was held after once `length`."""
    tracemalloc.start()
    try:
        await spend(length)
        before = traced()
        await spend(3 * length)
        return traced() - before
    finally:
        tracemalloc.stop()


async def streams(look: Callable[[Engine], Awaitable[None]], stream_s: float) -> None:
    """Have two clients stream two frames a second while `look` looks."""
    played, kept = scene(2, fps=2, stream_s=stream_s, workers=1), NoKept()
    engine = engine_of(played, kept)
    await engine.start()
    server, source = server_of(played, engine), StoredSource(played.clip, played.sizes)
    sessions = [
        Session(
            SessionConfig(client=i, name=f"c{i}", fps=2, slo_ms=300, stream_s=stream_s),
            link_of(played, server, i, None, 0.0),
            source,
            on_row=lambda row, detections: None,
        )
        for i in range(2)
    ]
    runs = [asyncio.create_task(session.run()) for session in sessions]
    await look(engine)
    for session in sessions:
        session.stop()
    await asyncio.gather(*runs)
    assert sum(session.counts()["ok"] for session in sessions) > 0.9 * 4 * stream_s - 20
    assert not any(session.rows or session.detections for session in sessions)
    await engine.stop(1)


async def comes_and_goes(engine: Engine, times: int) -> None:
    for i in range(times):
        client = engine.join(f"client {i} " + "x" * 100, 10, 500, lambda event: None)
        if i % 10 == 0:
            await asyncio.sleep(0.01)
        engine.leave(client)


async def crowd() -> KeepingEngine:
    """Return an engine of which nothing is kept for the record."""
    return await engine_on(
        [LoopWorker(profile())],
        planner=Trivial(),
        config=EngineConfig(max_clients=64),
        kept=NoKept(),
    )


def test_frames_leave_nothing_behind() -> None:
    async def look(engine: Engine) -> None:
        assert await grown(asyncio.sleep, 25) < KEPT_BYTES

    virtual_time.run(streams(look, 102))


def test_plans_leave_nothing_behind() -> None:
    async def main() -> None:
        engine = await crowd()
        for i in range(32):
            engine.join(f"c{i}", 0.5, 500, lambda event: None)
        assert await grown(asyncio.sleep, 20) < KEPT_BYTES
        assert engine.state()["plans"] > 100
        await engine.stop(0)

    virtual_time.run(main())


def test_clients_leave_nothing_behind() -> None:
    async def main() -> None:
        engine = await crowd()
        assert await grown(lambda n: comes_and_goes(engine, n), 300) < KEPT_BYTES
        assert len(engine.kept.gone) == 1
        await engine.stop(0)

    virtual_time.run(main())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_day_of_two_clients() -> None:
    async def look(engine: Engine) -> None:
        await asyncio.sleep(DAY_S / 12)
        before = rss()
        await asyncio.sleep(DAY_S * 11 / 12)
        assert abs(rss() - before) < 0.05 * before

    virtual_time.run(streams(look, DAY_S + 10))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_clients() -> None:
    async def main() -> None:
        engine = await crowd()
        await comes_and_goes(engine, 10_000)
        before = rss()
        await comes_and_goes(engine, 100_000)
        assert abs(rss() - before) < 0.05 * before
        await engine.stop(0)

    virtual_time.run(main())
