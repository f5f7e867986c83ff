"""Hiccups, broken devices, senseless plans: what each may cost, and that it ends. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from experiment import virtual_time
from jellyfish.errors import DeviceError
from jellyfish.records import Outcome, Reason
from jellyfish.scheduling.problem import GpuPlan, Plan, Problem
from server.engine import Engine
from server.planner import InlinePlanner
from server.worker import BatchResult, WorkerFrame
from tests.engine_world import Camera, LoopWorker, engine_of, profile

POLICIES = ("jellyfish", "paper")


@dataclass
class FaultyWorker(LoopWorker):
    """Pauses before a batch, fails every batch, or dies of frames that begin with BOMB."""

    pause_s: float = 0.0
    broken: bool = False

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        pause_s, self.pause_s = self.pause_s, 0.0
        if pause_s:  # outside of what the worker says that it was busy: it was not scheduled
            await asyncio.sleep(pause_s)
        if self.broken:
            raise DeviceError("cuda:0: CUDA error: an illegal memory access was encountered")
        if any(frame.image.startswith(BOMB) for frame in frames):
            self.die()
        return await super().run(dnn, frames, pad_to)


BOMB = b"bomb"


async def four_cameras(workers: Sequence[LoopWorker], **changes: object) -> list[Camera]:
    engine = await engine_of(workers, **changes)  # type: ignore[arg-type]
    cameras = [Camera(engine, f"c{i}", 15, 150).join() for i in range(4)]
    await stream(cameras, 5)
    return cameras


async def stream(cameras: Sequence[Camera], seconds: float) -> None:
    await asyncio.gather(*(camera.stream(seconds) for camera in cameras))
    await asyncio.sleep(0.2)  # for the last answers


def missed(cameras: Sequence[Camera]) -> int:
    return sum(camera.sent - camera.outcomes().get(Outcome.OK, 0) for camera in cameras)


async def stop(engine: Engine, cameras: Sequence[Camera]) -> None:
    await engine.stop(1)
    for camera in cameras:
        camera.check_one_answer_each()


@pytest.mark.parametrize("pause_s", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("policy_name", POLICIES)
def test_a_pause_of_one_worker_is_over_when_it_is_over(policy_name: str, pause_s: float) -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()), FaultyWorker(profile())]
        cameras = await four_cameras(workers, policy_name=policy_name)
        engine = cameras[0].engine
        workers[0].pause_s = pause_s
        await stream(cameras, 2)
        before = missed(cameras)
        newcomer = Camera(engine, "new", 15, 150).join()
        await asyncio.sleep(0.6)  # the published policy plans every half second
        await stream([*cameras, newcomer], 10)
        assert missed([*cameras, newcomer]) - before <= 0.02 * 750
        await stop(engine, [*cameras, newcomer])

    virtual_time.run(main())


@pytest.mark.parametrize("policy_name", POLICIES)
def test_a_pause_of_the_servers_own_loop_is_nobodys_fault(policy_name: str) -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()), FaultyWorker(profile())]
        cameras = await four_cameras(workers, policy_name=policy_name)
        loop = asyncio.get_running_loop()
        streams = asyncio.create_task(stream(cameras, 4))
        await asyncio.sleep(1.01)
        loop.stall(1.5)  # type: ignore[attr-defined]
        await streams
        before = missed(cameras)
        await stream(cameras, 10)
        assert missed(cameras) - before <= 0.02 * 600
        assert [worker.starts for worker in workers] == [1, 1], "no worker is to blame"
        await stop(cameras[0].engine, cameras)

    virtual_time.run(main())


def test_a_device_that_stays_broken_is_left_out_and_probed_until_it_is_whole() -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()), FaultyWorker(profile())]
        cameras = await four_cameras(workers)
        engine = cameras[0].engine
        workers[0].broken = True
        await stream(cameras, 2)
        errors = sum(c.outcomes().get(Outcome.ERROR, 0) for c in cameras)
        assert 1 <= errors <= 3 * 4, "a few batches, until it is seen"
        before = missed(cameras)
        await stream(cameras, 30)
        assert missed(cameras) - before <= 2, "the other GPU serves all"
        before = missed(cameras)
        assert engine.plans[-1].dnns_px[0] == 0
        assert workers[0].starts >= 15, "it is tried every 2 s"
        workers[0].broken = False
        await stream(cameras, 3)
        assert engine.plans[-1].dnns_px[0] > 0
        assert missed(cameras) == before
        await stop(engine, cameras)

    virtual_time.run(main())


def test_a_fault_that_stays_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()), FaultyWorker(profile())]
        cameras = await four_cameras(workers)
        workers[0].broken = True
        await stream(cameras, 120)
        await stop(cameras[0].engine, cameras)

    virtual_time.run(main())
    assert len(caplog.records) < 40


def test_a_server_whose_every_device_is_broken_says_so_and_comes_back() -> None:
    async def main() -> None:
        health: list[bool] = []
        worker = FaultyWorker(profile())
        engine = await engine_of([worker], on_health=health.append)
        camera = Camera(engine, "a", 15, 150).join()
        await stream([camera], 2)
        worker.broken = True
        await stream([camera], 5)
        assert health == [True, False]
        worker.broken = False
        await asyncio.sleep(3)
        assert health == [True, False, True]
        before = missed([camera])
        await stream([camera], 5)
        assert missed([camera]) == before
        await stop(engine, [camera])

    virtual_time.run(main())


def test_a_hang_costs_a_second_of_frames_where_another_gpu_has_room() -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()), FaultyWorker(profile())]
        cameras = await four_cameras(workers)
        workers[0].hang = True
        before = missed(cameras)
        await stream(cameras, 10)
        of_one = max(missed([c]) for c in cameras)
        assert of_one <= 1.2 * 15
        assert missed(cameras) - before <= 2 * 1.2 * 15
        assert workers[0].starts == 2
        await stop(cameras[0].engine, cameras)

    virtual_time.run(main())


def test_a_worker_that_hangs_while_idle_is_noticed_before_a_frame_comes() -> None:
    async def main() -> None:
        worker = FaultyWorker(profile())
        engine = await engine_of([worker])
        worker.hang = True
        await asyncio.sleep(3)
        assert worker.starts == 2
        camera = Camera(engine, "a", 15, 150).join()
        await stream([camera], 3)
        assert missed([camera]) == 0
        await stop(engine, [camera])

    virtual_time.run(main())


def test_a_client_whose_frames_kill_workers_is_put_out_and_the_others_live_on() -> None:
    async def main() -> None:
        workers = [FaultyWorker(profile()) for _ in range(2)]
        cameras = await four_cameras(workers)
        engine = cameras[0].engine
        out: list[str] = []
        bomber = Camera(engine, "bomber", 5, 150)
        bomber.handle = engine.join("bomber", 5, 150, bomber.deliver, out.append)
        streams = asyncio.create_task(stream(cameras, 20))
        for _ in range(100):
            if bomber.handle.gone:
                break
            bomber.send(BOMB)
            await asyncio.sleep(0.2)
        assert out == [Reason.KILLS_WORKERS]
        deaths = sum(worker.starts for worker in workers) - 2
        assert deaths <= 3
        await streams
        assert missed(cameras) <= 15 * 4
        await stop(engine, cameras)

    virtual_time.run(main())


def test_the_clients_of_a_worker_that_died_run_together_again_soon() -> None:
    async def main() -> None:
        worker = FaultyWorker(profile())
        engine = await engine_of([worker])
        cameras = [Camera(engine, f"c{i}", 20, 200).join() for i in range(4)]
        await stream(cameras, 3)
        worker.die()
        await stream(cameras, 3)
        worker.batches.clear()
        await stream(cameras, 3)
        assert max(frames for _, frames in worker.batches) > 1
        assert not any(camera.handle and camera.handle.gone for camera in cameras)
        await stop(engine, cameras)

    virtual_time.run(main())


class SpoiltPlanner(InlinePlanner):
    """Plans well twice, then as `spoil` makes of it until `healed`."""

    def __init__(self, spoil: Callable[[Plan], object]) -> None:
        super().__init__("paper", iterations=20)
        self._spoil = spoil
        self._calls = 0
        self.healed = False

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        plan, ms = await super().plan(problem, seed)
        await asyncio.sleep(0.02)
        self._calls += 1
        if self._calls > 2 and not self.healed:
            return self._spoil(plan), ms  # type: ignore[return-value]
        return plan, ms


SPOILS: dict[str, Callable[[Plan], object]] = {
    "a client short": lambda p: Plan(p.gpus, p.clients[:-1], 1.0, 0.5),
    "a GPU short": lambda p: Plan(p.gpus[:-1], p.clients, 1.0, 0.5),
    "a DNN that is not there": lambda p: Plan((GpuPlan(99, 1),) * len(p.gpus), p.clients, 1, 1),
    "batch 0": lambda p: Plan((GpuPlan(0, 0),) * len(p.gpus), p.clients, 1.0, 0.5),
    "mapped to an idle GPU": lambda p: Plan((None,) * len(p.gpus), p.clients, 1.0, 0.5),
    "a GPU that is not there": lambda p: Plan(p.gpus, (7,) * len(p.clients), 1.0, 0.5),
    "a negative GPU": lambda p: Plan(p.gpus, (-1,) * len(p.clients), 1.0, 0.5),
    "everybody on one GPU": lambda p: Plan((GpuPlan(3, 1),) * 2, (0,) * len(p.clients), 1.0, 0.5),
    "no plan": lambda p: None,
    "numbers that are none": lambda p: Plan((GpuPlan("x", None),) * 2, p.clients, 1.0, 0.5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("policy_name", POLICIES)
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS.keys())
def test_a_senseless_plan_changes_nothing(
    spoil: Callable[[Plan], object], policy_name: str
) -> None:
    async def main() -> None:
        planner = SpoiltPlanner(spoil)
        workers = [LoopWorker(profile()), LoopWorker(profile())]
        engine = await engine_of(workers, planner=planner, policy_name=policy_name)
        cameras = [Camera(engine, f"c{i}", 20, 150).join() for i in range(3)]
        await asyncio.sleep(1.2)
        await stream(cameras, 3)
        rows, before = len(engine.plans), missed(cameras)
        assert before <= 10, "two good plans, then none"
        late = Camera(engine, "late", 10, 150).join()
        await asyncio.sleep(0.6)
        await stream([*cameras, late], 3)
        assert missed([*cameras, late]) <= before + 2, "the newcomer has a GPU by a quick plan"
        assert len(engine.plans) == rows + 1
        assert [worker.starts for worker in workers] == [1, 1]
        planner.healed = True
        await stream([*cameras, late], 2)
        assert len(engine.plans) > rows + 1
        await stop(engine, [*cameras, late])

    virtual_time.run(main())


class HungPlanner(InlinePlanner):
    """Answers at once, or never while it hangs."""

    def __init__(self) -> None:
        super().__init__("paper", iterations=20)
        self.hangs = False
        self.given_up: list[str] = []

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        if self.hangs:
            await asyncio.sleep(1e6)
        return await super().plan(problem, seed)

    def give_up(self, why: str) -> None:
        self.given_up.append(why)


@pytest.mark.parametrize("policy_name", POLICIES)
def test_while_the_planner_hangs_whoever_must_move_is_placed_at_once(policy_name: str) -> None:
    async def main() -> None:
        planner = HungPlanner()
        workers = [LoopWorker(profile()), LoopWorker(profile())]
        cameras = await four_cameras(workers, planner=planner, policy_name=policy_name)
        engine = cameras[0].engine
        planner.hangs = True
        await stream(cameras, 0.6)
        before = missed(cameras)
        workers[0].fail_starts = 100
        workers[0].die()
        newcomer = Camera(engine, "new", 5, 150).join()
        await stream([*cameras, newcomer], 10)
        lost = missed([*cameras, newcomer]) - before
        assert lost <= 0.5 * 65, "half a second of frames at most"
        assert len(planner.given_up) >= 4, "it is asked again and again, for a second at most"
        planner.hangs = False
        await stream(cameras, 2)
        assert engine.plans[-1].solver != "quick"
        await stop(engine, [*cameras, newcomer])

    virtual_time.run(main())
