"""Time-outs that leave out what the loop itself lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiment import virtual_time
from server.stalls import GRAIN_S, TICK_S, LoopStalls


def test_a_limit_is_kept_while_the_loop_runs() -> None:
    async def main() -> None:
        stalls, loop = LoopStalls(), asyncio.get_running_loop()
        stalls.start()
        begin_s = loop.time()
        with pytest.raises(TimeoutError):
            async with stalls.timeout(0.5):
                await asyncio.sleep(100)
        assert 0.5 - GRAIN_S <= loop.time() - begin_s <= 0.5 + TICK_S
        async with stalls.timeout(0.5):
            await asyncio.sleep(0.4)
        assert stalls.total_s == 0
        stalls.stop()

    virtual_time.run(main())


@given(st.lists(st.floats(0.02, 5.0), min_size=1, max_size=4), st.floats(0.05, 0.4))
def test_stalls_are_measured_and_charged_to_nobody(lost_s: list[float], work_s: float) -> None:
    async def main() -> None:
        stalls, loop = LoopStalls(), asyncio.get_running_loop()
        stalls.start()
        async with stalls.timeout(len(lost_s) * (work_s + 0.1) + 0.1):
            for stall_s in lost_s:
                await asyncio.sleep(work_s)
                loop.stall(stall_s)  # type: ignore[attr-defined]
                await asyncio.sleep(0.06)  # a tick later it is known
        assert stalls.total_s == pytest.approx(sum(lost_s), abs=0.051 * len(lost_s))
        stalls.stop()

    virtual_time.run(main())


def test_an_answer_that_came_during_a_stall_came_in_time() -> None:
    async def main() -> None:
        stalls, loop = LoopStalls(), asyncio.get_running_loop()
        stalls.start()
        answer: asyncio.Future[Any] = loop.create_future()

        async def ask() -> Any:
            async with stalls.timeout(0.2):
                return await answer

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        loop.call_later(0.05, answer.set_result, "here")
        loop.stall(3.0)  # type: ignore[attr-defined]
        assert await asking == "here"
        stalls.stop()

    virtual_time.run(main())


def test_whoever_is_cancelled_is_cancelled_and_not_timed_out() -> None:
    async def main() -> None:
        stalls = LoopStalls()
        stalls.start()

        async def wait() -> None:
            async with stalls.timeout(1.0):
                await asyncio.sleep(100)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stalls.stop()

    virtual_time.run(main())
