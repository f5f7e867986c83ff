import asyncio

import pytest

from experiment import virtual_time
from jellyfish.errors import DeviceError
from jellyfish.records import Outcome, Reason
from jellyfish.scheduling.problem import Plan, Problem
from server.engine import NotServing
from server.planner import InlinePlanner
from server.settings import EngineConfig
from tests.engine_world import Camera, LoopWorker, engine_of, profile


def test_a_worker_that_dies_fails_its_batch_alone_and_comes_back() -> None:
    async def main() -> None:
        doomed, other = LoopWorker(profile()), LoopWorker(profile())
        engine = await engine_of([doomed, other])
        cameras = [Camera(engine, f"c{i}", 20, 150).join() for i in range(4)]
        streams = [asyncio.create_task(camera.stream(8)) for camera in cameras]
        await asyncio.sleep(3.003)
        doomed.die()
        await asyncio.sleep(0.1)
        assert not any(row.dnns_px[0] for row in engine.plans[-1:])
        await asyncio.gather(*streams)
        assert doomed.starts == 2
        assert engine.plans[-1].dnns_px[0] > 0
        await engine.stop(1)
        for camera in cameras:
            camera.check_one_answer_each()
            assert camera.outcomes()[Outcome.OK] >= 140
            assert camera.outcomes().get(Outcome.ERROR, 0) <= 4
            assert camera.reasons() <= {"", Reason.WORKER_DIED, Reason.TOO_LATE, Reason.NOT_MAPPED}
        assert engine.summary()["worker_restarts"] == [1, 0]

    virtual_time.run(main())


def test_without_a_live_worker_frames_and_joins_fail_at_once_with_the_reason() -> None:
    async def main() -> None:
        health: list[bool] = []
        worker = LoopWorker(profile())
        engine = await engine_of([worker], on_health=health.append)
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(1)
        worker.fail_starts = 2
        worker.die()  # while idle
        await asyncio.sleep(0.3)
        frame = camera.send()
        assert camera.answers[frame][0].reason == Reason.WORKER_DIED
        with pytest.raises(NotServing, match="no worker is alive"):
            Camera(engine, "b", 10, 150).join()
        await asyncio.sleep(5)  # two failed starts, then one that works
        assert health == [True, False, True]
        await camera.stream(1)
        await engine.stop(1)
        assert camera.answers[camera.sent - 1][0].outcome is Outcome.OK
        assert health[-1] is False

    virtual_time.run(main())


def test_a_worker_that_hangs_counts_as_dead() -> None:
    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker], config=EngineConfig(run_timeout_s=1))
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(1)
        worker.hang = True
        await camera.stream(4)
        await engine.stop(1)
        camera.check_one_answer_each()
        assert worker.starts == 2
        assert camera.answers[camera.sent - 1][0].outcome is Outcome.OK

    virtual_time.run(main())


@pytest.mark.parametrize("steps", range(10))
def test_an_engine_stops_though_its_worker_dies_meanwhile(steps: int) -> None:
    """A task group of which a task has failed forgets that it is cancelled."""

    async def main() -> None:
        worker = LoopWorker(profile())
        engine = await engine_of([worker])
        camera = Camera(engine, "a", 10, 150).join()
        await asyncio.sleep(0.1)
        assert engine.plans[-1].dnns_px[0] > 128, "a DNN is being loaded"
        async with asyncio.timeout(10):
            stopping = asyncio.create_task(engine.stop(1))
            for _ in range(steps):
                await asyncio.sleep(0)
            worker.die()
            await stopping
        camera.check_one_answer_each()
        assert worker.starts == 1

    virtual_time.run(main())


def test_workers_that_never_start_stop_the_start_with_their_reason() -> None:
    async def main() -> None:
        bad = [LoopWorker(profile(), fail_starts=1) for _ in range(2)]
        with pytest.raises(DeviceError, match="no device"):
            await engine_of(bad)
        assert not any(worker.alive for worker in bad)

    virtual_time.run(main())


def test_a_start_with_one_broken_worker_serves_on_the_other_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        good, bad = LoopWorker(profile()), LoopWorker(profile(), fail_starts=4)
        engine = await engine_of([good, bad])
        assert engine.healthy
        assert "GPU 1 does not serve yet: no device" in caplog.text
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(8)
        await engine.stop(1)
        assert camera.outcomes() == {Outcome.OK: 80}
        assert bad.starts == 1, "it was tried again until it started"

    virtual_time.run(main())


def test_a_start_without_one_dnn_serves_the_others_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        worker = LoopWorker(profile(), fail_loads={0})
        engine = await engine_of([worker])
        assert "DNN 0 cannot be loaded" in caplog.text
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(3)
        await engine.stop(1)
        assert camera.outcomes() == {Outcome.OK: 30}

    virtual_time.run(main())


def test_a_start_without_any_dnn_stops_with_the_reason() -> None:
    async def main() -> None:
        with pytest.raises(DeviceError, match="out of memory"):
            await engine_of([LoopWorker(profile(), fail_loads={0, 1, 2, 3})])

    virtual_time.run(main())


def test_ready_only_when_loaded() -> None:
    async def main() -> None:
        worker = LoopWorker(profile(), load_s=0.5)
        await engine_of([worker], config=EngineConfig(cached_dnns=3))
        assert asyncio.get_running_loop().time() >= 1.5
        assert worker.loaded == {0, 1, 2}

    virtual_time.run(main())


class _BrokenPlanner(InlinePlanner):
    """Fails in the two ways that a planner can, then works."""

    def __init__(self) -> None:
        super().__init__("paper", iterations=20)
        self.calls = 0

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        if problem.clients:
            self.calls += 1
            if self.calls == 2:
                raise DeviceError("stuck")
            if self.calls == 3:
                raise ZeroDivisionError
        return await super().plan(problem, seed)


def test_planning_survives_its_planner() -> None:
    async def main() -> None:
        planner = _BrokenPlanner()
        engine = await engine_of([LoopWorker(profile())], planner=planner)
        camera = Camera(engine, "a", 10, 150).join()
        await camera.stream(4)
        await engine.stop(1)
        assert planner.calls >= 8
        assert camera.outcomes() == {Outcome.OK: 40}

    virtual_time.run(main())


def test_a_slow_planner_delays_nobody_who_is_served() -> None:
    async def main() -> None:
        planner = InlinePlanner("paper", charge_ms=3000, iterations=20)
        engine = await engine_of([LoopWorker(profile())], planner=planner)
        camera = Camera(engine, "a", 10, 150).join()
        await asyncio.sleep(4)
        await camera.stream(10)
        await engine.stop(1)
        assert camera.outcomes() == {Outcome.OK: 100}

    virtual_time.run(main())
