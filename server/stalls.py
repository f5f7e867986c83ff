"""Time-outs that leave out what the server's own event loop lost.

A loop that stood still (the process was paused, or something blocked it) finds every time-out due
at once, although nobody had a chance to answer in time. Whoever waits for a child measures with
`LoopStalls` and charges the child only what the loop was there to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TICK_S = 0.05
GRAIN_S = 0.01  # a timer that is this late is a busy loop's, not a stall


class LoopStalls:
    """Measures for how long the running loop stood still, between `start` and `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin_s = self._total_s = 0.0
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure from now on."""
        self._begin_s = self._loop.time()
        self._schedule()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_s = float("inf")

    @property
    def total_s(self) -> float:
        """Seconds that the loop stood still so far, a stall that has just ended included."""
        late_s = self._loop.time() - self._due_s
        return self._total_s + (late_s if late_s > GRAIN_S else 0.0)

    def _tick(self) -> None:
        self._total_s = self.total_s
        self._schedule()

    def _schedule(self) -> None:
        ticks = round((self._loop.time() - self._begin_s) / TICK_S) + 1
        self._due_s = self._begin_s + ticks * TICK_S  # not summed up: no drift, round numbers
        self._timer = self._loop.call_at(self._due_s, self._tick)

    @asynccontextmanager
    async def timeout(self, limit_s: float) -> AsyncIterator[None]:
        """Limit the block to `limit_s` seconds of a running loop.

        Raises:
            TimeoutError: the block took longer.
        """
        begin_s, stalled_s = self._loop.time(), self.total_s
        timer: asyncio.TimerHandle

        def due() -> None:
            nonlocal timer
            spent_s = self._loop.time() - begin_s - (self.total_s - stalled_s)
            if limit_s - spent_s > GRAIN_S:
                timer = self._loop.call_later(limit_s - spent_s, due)
            else:  # not at once: what arrived during this turn of the loop is taken first
                limit.reschedule(begin_s)

        async with asyncio.timeout(None) as limit:
            timer = self._loop.call_later(limit_s, due)
            try:
                yield
            finally:
                timer.cancel()
