"""The scheduler as the engine sees it: inline, or in a process of its own.

A process keeps a slow solve from delaying frames, and a stuck or crashed one from stopping the
server: the caller gets an error, keeps its plan, and a later call finds a fresh process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol, cast

from jellyfish.errors import DeviceError
from jellyfish.scheduling.problem import Plan, Problem
from jellyfish.scheduling.solvers import solver
from server.child import Child, ChildDied, Command, Launch, launch
from server.throttled_log import ThrottledLog

START_S = 60.0  # for interpreter, imports and, in a fresh checkout, compiling
RESTART_S = 2.0  # longest pause between two tries to start a process that keeps dying


class Planner(Protocol):
    """Solves scheduling problems, one at a time."""

    async def ready(self) -> None:
        """Return once it can plan.

        Raises:
            DeviceError: it does not start.
        """

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that solving took.

        Raises:
            DeviceError: the planner failed this time; it can be asked again.
        """

    def give_up(self, why: str) -> None:
        """End the plan that is under way, whose caller waits no more, with whatever makes it."""

    async def close(self) -> None:
        """Free what the planner holds; harmless when repeated."""


class InlinePlanner:
    """Solves in the event loop, which stands still meanwhile; for virtual time and tests.

    Args:
        solver_name: what policies call the solver.
        charge_ms: what a solve is said to take, or what gives it a solve, spent on the loop's clock
            after solving: in virtual time the clock stands still while code runs.
        iterations: the solver's effort; None is its own.
    """

    def __init__(
        self,
        solver_name: str,
        *,
        charge_ms: float | Callable[[], float] = 0.0,
        iterations: int | None = None,
    ) -> None:
        self._solve = solver(solver_name)
        self._charge_ms = charge_ms if callable(charge_ms) else lambda: charge_ms
        self._iterations = iterations

    async def ready(self) -> None:
        """Return at once."""

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that passed on the loop's clock."""
        clock = asyncio.get_running_loop().time
        start = clock()
        plan = self._solve(problem, seed, self._iterations)
        charge_ms = self._charge_ms()
        if charge_ms:
            await asyncio.sleep(charge_ms / 1000)
        return plan, (clock() - start) * 1000

    def give_up(self, why: str) -> None:
        """Do nothing: whoever was cancelled has stopped already."""

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


class ProcessPlanner:
    """Solves in a child process, which is started when first needed and again after it ended.

    Args:
        solver_name: what policies call the solver.
        iterations: the solver's effort; None is its own.
        launch: starts the child.
    """

    def __init__(
        self, solver_name: str, *, iterations: int | None = None, launch: Launch = launch
    ) -> None:
        solver(solver_name)  # an unknown name is better told now than by the child
        self._command = Command("server.planner_process", (solver_name,))
        self._iterations = iterations
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self._log = ThrottledLog("planner")
        self._one_at_a_time = asyncio.Lock()
        self._child: Child | None = None
        self._started_s = -inf
        self._pause_s = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None where none runs."""
        return self._child.pid if self._child and self._child.alive else None

    async def ready(self) -> None:
        """Start the child and wait until it can plan.

        Raises:
            DeviceError: it does not start.
        """
        child = self._live_child()
        try:
            async with asyncio.timeout(START_S):
                await child.call("ready")
        except TimeoutError:
            self.give_up(f"did not start within {START_S:g} s")
            raise DeviceError(f"planner: it did not start within {START_S:g} s") from None

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that solving took in the child.

        Raises:
            DeviceError: the solver raised or died, a new process is still starting, or the planner
                is closed.
        """
        async with self._one_at_a_time:
            child = self._live_child()
            if not child.answered:
                self._still_starting(child)
            self._pause_s = 0.0
            try:
                reply = await child.call("plan", problem, seed, self._iterations)
            except ChildDied as died:
                raise DeviceError("planner: closed" if self._closed else str(died)) from None
        return cast(tuple[Plan, float], reply)

    def give_up(self, why: str) -> None:
        """Kill the child, if there is one; the next call starts another."""
        if self._child is not None and self._child.alive:
            self._log.tell(f"process {self._child.pid} {why} and is killed")
            self._child.kill()

    async def close(self) -> None:
        """End the child; a plan that is under way raises DeviceError."""
        self._closed = True
        if self._child:
            await self._child.end()

    def _live_child(self) -> Child:
        if self._closed:
            raise DeviceError("planner: closed")
        if self._child is None or not self._child.alive:
            self._start()
        assert self._child is not None
        return self._child

    def _start(self) -> None:
        now_s = self._loop.time()
        if self._child is not None:
            if now_s < self._started_s + self._pause_s:
                raise DeviceError(f"{self._child.epitaph}; another is started soon")
            ended = f"process {self._child.pid} ended ({self._child.cause})"
            self._log.tell(f"{ended}; another is started")
            self._pause_s = min(RESTART_S, max(0.25, 2 * self._pause_s))
        self._started_s = now_s
        self._child = Child(self._command, "planner", self._launch)

    def _still_starting(self, child: Child) -> None:
        if self._loop.time() - self._started_s > START_S:
            self.give_up(f"did not start within {START_S:g} s")
        raise DeviceError(f"planner: its process {child.pid} is still starting")
