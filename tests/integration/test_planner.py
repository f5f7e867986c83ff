"""The planner in a real process of its own: what it answers, and how it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from experiment import virtual_time
from jellyfish.errors import ConfigError, DeviceError
from jellyfish.scheduling import paper
from jellyfish.scheduling.problem import Problem
from server.child import Child
from server.planner import InlinePlanner, ProcessPlanner
from tests.unit.scheduling_cases import problem, reference_cases

SMALL = problem((20.0, 100.0, 100_000.0))
ENDLESS = 10**9  # iterations


@pytest.fixture
async def planner() -> AsyncIterator[ProcessPlanner]:
    planner = ProcessPlanner("paper")
    await planner.ready()
    yield planner
    await planner.close()


def large_problem() -> Problem:
    problems: list[Problem] = [case["problem"] for case in reference_cases()]
    return max(problems, key=lambda asked: asked.clients)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_plans_as_the_solver_does(planner: ProcessPlanner) -> None:
    asked = large_problem()
    (plan, solve_ms), (small, _) = await asyncio.gather(
        planner.plan(asked, 7), planner.plan(SMALL, 7)
    )
    assert plan == paper.solve(asked, 7)
    assert small == paper.solve(SMALL, 7)
    assert solve_ms > 0


async def test_the_loop_runs_on_while_a_plan_is_made(planner: ProcessPlanner) -> None:
    solving = asyncio.create_task(planner.plan(large_problem(), 1))
    ticks = 0
    while not solving.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 10
    assert (await solving)[0].effectiveness == 1.0


async def test_a_dead_process_is_replaced_with_a_line_in_the_log(
    planner: ProcessPlanner, caplog: pytest.LogCaptureFixture
) -> None:
    await planner.plan(SMALL, 1)
    first = planner.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(10):
        while planner.pid is not None:
            await asyncio.sleep(0.01)
    await planner.ready()
    plan, _ = await planner.plan(SMALL, 1)
    assert plan == paper.solve(SMALL, 1)
    assert planner.pid not in {None, first}
    assert f"planner: process {first} ended (" in caplog.text


async def test_a_process_that_dies_while_solving_fails_that_plan_alone() -> None:
    planner = ProcessPlanner("paper", iterations=ENDLESS)
    await planner.ready()
    solving = asyncio.create_task(planner.plan(SMALL, 1))
    await asyncio.sleep(0.1)
    assert planner.pid is not None
    os.kill(planner.pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match="ended"):
        await solving
    await planner.close()


async def test_a_stuck_solve_is_given_up_and_its_process_killed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    planner = ProcessPlanner("paper", iterations=ENDLESS)
    await planner.ready()
    pid = planner.pid
    assert pid is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await planner.plan(SMALL, 1)
    planner.give_up("had no plan within 0.3 s")
    assert f"process {pid} had no plan within 0.3 s and is killed" in caplog.text
    assert planner.pid is None
    async with asyncio.timeout(10):
        while exists(pid):
            await asyncio.sleep(0.01)
    await planner.close()


async def test_nobody_waits_for_a_process_that_starts(planner: ProcessPlanner) -> None:
    await planner.ready()
    planner.give_up("is not wanted")
    with pytest.raises(DeviceError, match="is still starting"):
        await planner.plan(SMALL, 1)
    await planner.ready()
    assert (await planner.plan(SMALL, 1))[0] == paper.solve(SMALL, 1)


async def test_closing_ends_the_process_and_whatever_it_solves() -> None:
    planner = ProcessPlanner("paper", iterations=ENDLESS)
    await planner.ready()
    solving = asyncio.create_task(planner.plan(SMALL, 1))
    await asyncio.sleep(0.1)
    pid = planner.pid
    assert pid is not None
    await planner.close()
    await planner.close()
    with pytest.raises(DeviceError, match="closed"):
        await solving
    with pytest.raises(DeviceError, match="closed"):
        await planner.plan(SMALL, 1)
    assert not exists(pid)


async def test_a_plan_given_up_harms_no_later_one(planner: ProcessPlanner) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(planner.plan(large_problem(), 1), 0.01)
    plan, _ = await planner.plan(SMALL, 2)
    assert plan == paper.solve(SMALL, 2)


async def test_who_is_cancelled_as_the_plan_arrives_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that stops at that moment would otherwise wait for its planning for ever."""
    take, asking = Child._on_reply, []

    def take_and_cancel(child: Child, message: tuple[int, object]) -> None:
        take(child, message)
        for task in asking:
            task.cancel()

    monkeypatch.setattr(Child, "_on_reply", take_and_cancel)
    planner = ProcessPlanner("paper")
    await planner.ready()
    asking.append(asyncio.create_task(planner.plan(SMALL, 1)))
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    await planner.close()


async def test_a_solver_that_raises_says_why_and_its_process_lives_on(
    planner: ProcessPlanner,
) -> None:
    await planner.plan(SMALL, 1)
    pid = planner.pid
    broken = problem((20.0, 100.0, 100_000.0))
    object.__setattr__(broken, "gpus", None)
    with pytest.raises(DeviceError, match="TypeError"):
        await planner.plan(broken, 1)
    assert planner.pid == pid


def test_the_process_dies_with_its_parent_even_while_solving() -> None:
    parent = f"""if True:
        import asyncio, os, signal
        from server.planner import ProcessPlanner
        from tests.unit.scheduling_cases import problem

        async def main():
            planner = ProcessPlanner("paper", iterations={ENDLESS})
            await planner.ready()
            solving = asyncio.create_task(planner.plan(problem((20.0, 100.0, 100_000.0)), 1))
            await asyncio.sleep(2)
            assert planner.pid and not solving.done()
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    root = Path(__file__).parents[2]
    # The planner's process shares stdout, so `run` returns when that has ended, too.
    ended = subprocess.run(
        [sys.executable, "-c", parent], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_an_unknown_solver_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no solver 'magic'"):
        ProcessPlanner("magic")


def test_in_virtual_time_a_solve_takes_what_it_is_charged() -> None:
    async def body() -> tuple[float, bool]:
        planner = InlinePlanner("paper", charge_ms=12.5, iterations=10)
        plan, solve_ms = await planner.plan(SMALL, 3)
        await planner.close()
        return solve_ms, plan == paper.solve(SMALL, 3, 10)

    solve_ms, as_the_solver = virtual_time.run(body())
    assert solve_ms == pytest.approx(12.5)
    assert as_the_solver
