"""Time-outs that leave out what the server's own event loop lost.

A loop that stood still (the process was paused, or something blocked it) finds every time-out due
at once, although nobody had a chance to answer in time. Whoever waits for a child measures with
`LoopStalls` and charges the child only what the loop was there to see.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK_S = 0.05
GRAIN_S = 0.01  # a timer that is this late is a busy loop's, not a stall


class LoopStalls:
    """Measures for how long the running loop stood still, between `start` and `stop`.

    Meanwhile, it keeps an eye on limits: one tick for all of them, and no timer for each batch.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin_s = self._total_s = 0.0
        self._due_s = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._limits: dict[_Limit, None] = {}  # in the order in which they were set

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

    @property
    def running_s(self) -> float:
        """The loop's time less all stalls."""
        return self._loop.time() - self.total_s

    def _tick(self) -> None:
        self._total_s = self.total_s
        self._schedule()
        now_s = self.running_s
        for limit in [limit for limit in self._limits if limit.ends_s <= now_s + GRAIN_S]:
            limit.expire()

    def _schedule(self) -> None:
        ticks = round((self._loop.time() - self._begin_s) / TICK_S) + 1
        self._due_s = self._begin_s + ticks * TICK_S  # not summed up: no drift, round numbers
        self._timer = self._loop.call_at(self._due_s, self._tick)

    def timeout(self, limit_s: float) -> _Limit:
        """Limit an `async with` block to `limit_s` seconds of a running loop, up to a tick more.

        Raises:
            TimeoutError: the block took longer.
        """
        return _Limit(self, limit_s)


class _Limit:
    """See LoopStalls.timeout."""

    __slots__ = ("_stalls", "_timeout", "ends_s")

    def __init__(self, stalls: LoopStalls, limit_s: float) -> None:
        self._stalls, self._timeout = stalls, asyncio.timeout(None)
        self.ends_s = stalls.running_s + limit_s

    def expire(self) -> None:
        # Not at once: what arrived during this turn of the loop is taken first.
        self._timeout.reschedule(self._stalls._loop.time())
        del self._stalls._limits[self]

    async def __aenter__(self) -> None:
        self._stalls._limits[self] = None
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stalls._limits.pop(self, None)
        await self._timeout.__aexit__(kind, error, traceback)
