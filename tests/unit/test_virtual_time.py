import asyncio
import time

import pytest

from experiment import virtual_time


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
