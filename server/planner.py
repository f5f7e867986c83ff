"""The scheduler as the engine sees it: inline, or in a process of its own.

A process keeps a slow solve from delaying frames, and a stuck or crashed one from stopping the
server: the caller gets an error, keeps its plan, and the next call finds a fresh process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from jellyfish.errors import DeviceError
from jellyfish.scheduling.problem import Plan, Problem
from jellyfish.scheduling.solvers import solver
from server.child import Child, ChildDied, Command, Launch, launch

log = logging.getLogger(__name__)

START_ALLOWANCE_S = 60.0  # on top of the first solve's time: interpreter and imports


class Planner(Protocol):
    """Solves scheduling problems, one at a time."""

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that solving took.

        Raises:
            DeviceError: the planner failed this time; it can be asked again.
        """

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

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that passed on the loop's clock."""
        clock = asyncio.get_running_loop().time
        start = clock()
        plan = self._solve(problem, seed, self._iterations)
        charge_ms = self._charge_ms()
        if charge_ms:
            await asyncio.sleep(charge_ms / 1000)
        return plan, (clock() - start) * 1000

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""


class ProcessPlanner:
    """Solves in a child process, which is started when first needed and again after it ended.

    Args:
        solver_name: what policies call the solver.
        timeout_s: a solve that takes longer is given up, and its process killed.
        iterations: the solver's effort; None is its own.
        launch: starts the child.
    """

    def __init__(
        self,
        solver_name: str,
        *,
        timeout_s: float = 5.0,
        iterations: int | None = None,
        launch: Launch = launch,
    ) -> None:
        solver(solver_name)  # an unknown name is better told now than by the child
        self._command = Command("server.planner_process", (solver_name,))
        self._timeout_s = timeout_s
        self._iterations = iterations
        self._launch = launch
        self._one_at_a_time = asyncio.Lock()
        self._child: Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None where none runs."""
        return self._child.pid if self._child and self._child.alive else None

    async def plan(self, problem: Problem, seed: int) -> tuple[Plan, float]:
        """Return the plan and the ms that solving took in the child.

        Raises:
            DeviceError: the solver raised, took too long or died, or the planner is closed.
        """
        async with self._one_at_a_time:
            child = self._live_child()
            timeout_s = self._timeout_s + (0.0 if child.answered else START_ALLOWANCE_S)
            try:
                # not wait_for, which forgets to be cancelled once there is a reply (Python 3.11)
                async with asyncio.timeout(timeout_s):
                    reply = await child.call("plan", problem, seed, self._iterations)
            except TimeoutError:
                child.kill()
                text = f"planner: process {child.pid} had no plan within {timeout_s:g} s"
                raise DeviceError(f"{text} and was killed") from None
            except ChildDied as died:
                raise DeviceError("planner: closed" if self._closed else str(died)) from None
        return cast(tuple[Plan, float], reply)

    async def close(self) -> None:
        """End the child; a plan that is under way raises DeviceError."""
        self._closed = True
        if self._child:
            await self._child.end()

    def _live_child(self) -> Child:
        if self._closed:
            raise DeviceError("planner: closed")
        if self._child is None or not self._child.alive:
            if self._child is not None:
                log.warning("%s; starting another", self._child.epitaph)
            self._child = Child(self._command, "planner", self._launch)
        return self._child
