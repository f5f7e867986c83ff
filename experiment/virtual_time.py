"""An asyncio event loop whose clock jumps to the next timer: hours of serving in seconds.

The engine and the client session run on it unchanged. Nothing outside the loop can wake it, so
a loop with nothing to do and nothing scheduled is a deadlock and says so instead of hanging.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, NoReturn, TypeVar

from jellyfish.errors import JellyfishError

T = TypeVar("T")

INSTANT_S = 1e-9  # timers that close together are one instant: rounding must not order them
MANY_IDLE = 100  # cancelled timers, before the heap is rid of them


class DeadlockError(JellyfishError):
    """Every task of a virtual-time loop waits for something that nothing will ever do."""


class _Call(asyncio.TimerHandle):
    """A handle that is quickly made: no traceback is kept, and no context copied for it."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context,
    ) -> None:
        self._callback, self._args, self._loop, self._context = callback, args, loop, context
        self._cancelled, self._scheduled = False, True
        self._repr = self._source_traceback = None
        self._when = when

    def cancel(self) -> None:
        """Do not call; see asyncio."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]  # free what they hold
            self._loop._timer_handle_cancelled(self)  # type: ignore[attr-defined]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and whose time moves only from timer to timer.

    What asyncio does between two callbacks is much of what a simulation costs, so the loop's inner
    part is its own: no selector is asked, handles are quickly made, and the heap holds tuples,
    which compare fast. Timers for one time fire in the order in which they were set.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, _Call]] = []
        self._set = 0  # timers so far
        self._idle_timers = 0  # cancelled, but still in the heap
        self._shared = copy_context()  # of all callbacks that bring none
        super().__init__()

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call `callback` with `args` before time moves on; see asyncio."""
        handle = _Call(self._now, callback, args, self, context or self._shared)
        handle._scheduled = False  # it is no timer
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call `callback` with `args` at `when` on this loop's clock; see asyncio."""
        handle = _Call(when, callback, args, self, context or self._shared)
        self._set += 1
        heappush(self._timers, (when, self._set, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Call `callback` with `args` in `delay` seconds; see asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]  # and not one that has fired
            self._idle_timers += 1

    def _run_once(self) -> None:
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        if not ready:
            self._jump()
        end_s = self._now + INSTANT_S
        while timers and timers[0][0] <= end_s:
            timer = heappop(timers)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._idle_timers -= 1
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """Move time to the next timer that was not cancelled.

        Raises:
            DeadlockError: there is none.
        """
        timers = self._timers
        if self._idle_timers > MANY_IDLE and 2 * self._idle_timers > len(timers):
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapify(timers)
            self._idle_timers = 0
        while timers and timers[0][2]._cancelled:
            heappop(timers)
            self._idle_timers -= 1
        if not timers:
            raise DeadlockError(f"nothing is scheduled at {self._now:.6f} s; {self._waiting()}")
        self._now = max(self._now, timers[0][0])

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "these tasks wait: " + "; ".join(_describe(task) for task in tasks)

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Refuse: a thread would bring the wall clock in.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("virtual time has no executors: threads run on the wall clock")


def _describe(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    at = f" at {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else ""
    return f"{task.get_name()}{at}"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time and return its result; tasks that it leaves are cancelled.

    Raises:
        DeadlockError: every task waits and no timer is set; the text names the tasks.
    """
    results: list[T] = []

    async def keep() -> None:  # the runner puts a task's result into words: never a large one
        results.append(await main)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(keep())
    return results[0]
