"""An asyncio event loop whose clock jumps to the next timer: hours of serving in seconds.

The engine and the client session run on it unchanged. Nothing outside the loop can wake it, so
a loop with nothing to do and nothing scheduled is a deadlock and says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from jellyfish.errors import JellyfishError

T = TypeVar("T")


class DeadlockError(JellyfishError):
    """Every task of a virtual-time loop waits for something that nothing will ever do."""


class _JumpingSelector(selectors.SelectSelector):
    """A selector that never waits: it hands the time that it was asked to wait to `jump`."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._jump(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at 0 s and whose time moves only from timer to timer."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self._advance))
        # Timers that close together are one instant: rounding must not order them.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise DeadlockError(f"nothing is scheduled at {self._now:.6f} s; {self._waiting()}")
        self._now += timeout

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
