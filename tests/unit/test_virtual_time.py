import asyncio
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from experiment import virtual_time
from server.pipe import LoopPipe
from tests.chaos import sockets


async def test_is_not_the_loop_of_ordinary_tests() -> None:
    assert not isinstance(asyncio.get_running_loop(), virtual_time.VirtualTimeLoop)


def test_an_hour_passes_at_once_and_exactly() -> None:
    async def hour() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    started = time.process_time()
    assert virtual_time.run(hour()) == 3600
    assert time.process_time() - started < 5


def test_timers_fire_in_order_of_their_times() -> None:
    seen: list[tuple[str, float]] = []

    async def tick(name: str, period: float) -> None:
        for _ in range(3):
            await asyncio.sleep(period)
            seen.append((name, asyncio.get_running_loop().time()))

    async def both() -> None:
        await asyncio.gather(tick("slow", 5.0), tick("fast", 2.0))

    virtual_time.run(both())
    assert seen == [("fast", 2), ("fast", 4), ("slow", 5), ("fast", 6), ("slow", 10), ("slow", 15)]


def test_timeouts_work() -> None:
    async def late() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 3)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(late()) == 3


def test_a_deadlock_names_the_tasks_that_wait() -> None:
    async def stuck() -> None:
        waiter = asyncio.create_task(asyncio.Event().wait(), name="waits-for-nothing")
        await waiter

    with pytest.raises(virtual_time.DeadlockError, match="waits-for-nothing"):
        virtual_time.run(stuck())


def test_an_executor_is_refused() -> None:
    async def threads() -> None:
        await asyncio.to_thread(lambda: None)

    with pytest.raises(RuntimeError, match="virtual time"):
        virtual_time.run(threads())


def test_cancelled_timers_neither_fire_nor_hold_time_up() -> None:
    seen: list[float] = []

    async def play() -> float:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(k, seen.append, k) for k in range(1, 1001)]
        for timer in timers[:990]:
            timer.cancel()
        await asyncio.sleep(1500)
        timers[-1].cancel()  # it has fired: nothing happens
        loop.call_later(9000, seen.append, 0).cancel()
        return loop.time()

    assert virtual_time.run(play()) == 1500
    assert seen == list(range(991, 1001))


def test_timers_for_one_moment_fire_in_the_order_in_which_they_were_set() -> None:
    seen: list[int] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        for k in range(50):
            loop.call_at(7.0, seen.append, k)
        loop.call_at(7.0 - 1e-12, seen.append, -1)  # rounding: the same moment
        await asyncio.sleep(8)

    virtual_time.run(play())
    assert seen == [-1, *range(50)]


def test_an_exception_in_a_callback_is_reported_and_others_go_on() -> None:
    told: list[str] = []

    async def play() -> float:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        loop.call_later(1, int, "no number")
        await asyncio.sleep(2)
        return loop.time()

    assert virtual_time.run(play()) == 2
    assert len(told) == 1
    assert "no number" in told[0]


def test_what_falls_due_while_code_runs_is_late() -> None:
    seen: list[tuple[str, float]] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        for name, at_s in (("a", 1.0), ("b", 1.5), ("c", 3.0)):
            loop.call_at(at_s, lambda name=name: seen.append((name, loop.time())))
        await asyncio.sleep(0.5)
        loop.stall(2.0)
        await asyncio.sleep(5)

    virtual_time.run(play())
    assert seen == [("a", 2.5), ("b", 2.5), ("c", 3.0)]


def order(seed: int | None) -> list[int]:
    """Return in which order ten things happen at one instant: five timers, five cancelled tasks."""
    seen: list[int] = []

    async def wait(k: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(k)

    async def play() -> None:
        for k in range(5):
            asyncio.get_running_loop().call_at(1.0, seen.append, k)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0), asyncio.TaskGroup() as group:
                for k in range(5, 10):
                    group.create_task(wait(k))

    virtual_time.run(play(), seed)
    return seen


def test_a_seed_orders_what_is_due_at_one_instant() -> None:
    orders = {seed: order(seed) for seed in range(5)}
    assert all(sorted(seen) == list(range(10)) for seen in orders.values())
    assert len({tuple(seen) for seen in orders.values()}) == 5
    assert orders == {seed: order(seed) for seed in range(5)}
    assert order(None)[:5] == list(range(5))


def test_a_seed_gives_the_same_order_in_every_process() -> None:
    """Task groups cancel in the order of a set of tasks, which is that of their addresses."""
    code = "from tests.unit.test_virtual_time import order; x = [{}] * %d; print(order(3))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code % (1000 * n)],
            env=os.environ | {"PYTHONHASHSEED": str(n), "PYTHONPATH": "."},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(printed) == 1


def test_callbacks_without_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "ENDLESS", 1000)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(virtual_time.LivelockError, match=r"at 0\.0+ s"):
        virtual_time.run(spin(), 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_task_is_cancelled_at_the_wait_that_is_named(n: int) -> None:
    waits: list[int] = []

    async def three_waits() -> str:
        for k in range(1, 4):
            waits.append(k)
            await asyncio.sleep(1)
        return "done"

    async def play() -> str:
        task = asyncio.create_task(virtual_time.cancelled_at(three_waits(), n))
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled"

    assert virtual_time.run(play()) == ("done" if n > 3 else "cancelled")
    assert waits == list(range(1, min(n, 3) + 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_servers_pipe_runs_over_simulated_sockets(seed: int) -> None:
    """Whole messages come out of partial writes through a bounded buffer, then the end."""
    sent = [bytes([k]) * size for k, size in enumerate((1, 300_000, 0, 700_000, 10))]
    got: list[bytes] = []
    ends: list[str] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_time.VirtualTimeLoop)
        one, other = sockets.pair(loop, Random(seed))
        here: Any = LoopPipe(loop, one, got.append, lambda: ends.append("here"))  # type: ignore[arg-type]
        there: Any = LoopPipe(loop, other, got.append, lambda: ends.append("there"))  # type: ignore[arg-type]
        for message in sent:
            here.send(message)
        assert len(got) == 0
        await asyncio.sleep(1)
        there.close()
        await asyncio.sleep(1)
        here.send(b"lost")

    virtual_time.run(play(), seed)
    assert got == sent
    assert ends == ["here"]
