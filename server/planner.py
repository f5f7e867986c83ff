"""The scheduler as the engine sees it: inline, or in a process of its own.

A process keeps a slow solve from delaying frames, and a stuck or crashed one from stopping the
server: the caller gets an error, keeps its plan, and the next call finds a fresh process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Protocol

from jellyfish.errors import DeviceError
from jellyfish.scheduling.problem import Plan, Problem
from jellyfish.scheduling.solvers import solver
from server.linux import ends_blocked
from server.pipe import LoopPipe
from server.planner_messages import Failure, Reply, Request

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[1]
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
    """

    def __init__(
        self, solver_name: str, *, timeout_s: float = 5.0, iterations: int | None = None
    ) -> None:
        solver(solver_name)  # an unknown name is better told now than by the child
        self._solver_name = solver_name
        self._timeout_s = timeout_s
        self._iterations = iterations
        self._one_at_a_time = asyncio.Lock()
        self._ids = count()
        self._child: _Child | None = None
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
            request = Request(next(self._ids), problem, seed, self._iterations)
            try:
                # not wait_for, which forgets to be cancelled once there is a reply (Python 3.11)
                async with asyncio.timeout(timeout_s):
                    reply = await child.ask(request)
            except TimeoutError:
                child.end(f"had no plan within {timeout_s:g} s and was killed")
                raise DeviceError(f"planner: {child.epitaph}") from None
        return reply.plan, reply.solve_ms

    async def close(self) -> None:
        """End the child at once; a plan that is under way raises DeviceError."""
        self._closed = True
        if self._child:
            self._child.end("closed")

    def _live_child(self) -> _Child:
        if self._closed:
            raise DeviceError("planner: closed")
        if self._child is None or not self._child.alive:
            if self._child is not None:
                log.warning("planner: %s; starting another", self._child.epitaph)
            self._child = _Child(self._solver_name)
        return self._child


class _Child:
    """One planner process, alive until `end` or its own death, and its end of the pipe."""

    def __init__(self, solver_name: str) -> None:
        self.alive = True
        self.answered = False  # anything yet
        self.epitaph = ""  # how it ended
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(solver_name, theirs)
        self._pipe = LoopPipe(self._loop, ours, self._take, lambda: self.end("died"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request) -> asyncio.Future[Reply]:
        """Send a request; the future gets its reply, or DeviceError."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[request.id] = answer
        self._pipe.send(request)
        return answer

    def end(self, epitaph: str) -> None:
        """Kill the process (it has no state to lose) and fail what waits for it."""
        if not self.alive:
            return
        self.alive = False
        self._pipe.close()
        self._process.kill()
        self.epitaph = f"process {self.pid} {epitaph} (exit code {self._process.wait()})"
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(DeviceError(f"planner: {self.epitaph}"))
        self._waiting.clear()

    def _take(self, reply: Reply | Failure) -> None:
        self.answered = True
        answer = self._waiting.pop(reply.id)
        if answer.done():  # whoever asked was cancelled
            return
        if isinstance(reply, Failure):
            answer.set_exception(DeviceError(f"planner: {reply.text}"))
        else:
            answer.set_result(reply)


def _start(solver_name: str, pipe: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process of its own kind: a fork would take the server's threads and sockets along."""
    command = [sys.executable, "-m", "server.planner_process"]
    command += [str(pipe.fileno()), solver_name, str(os.getpid())]
    with ends_blocked():
        return subprocess.Popen(
            command, cwd=REPOSITORY, pass_fds=[pipe.fileno()], stdin=subprocess.DEVNULL
        )
