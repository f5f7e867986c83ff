"""The planner's process: `python -m server.planner_process FD SOLVER PARENT`, for server.planner.

Reads requests off the pipe at file descriptor FD and answers each in turn, until the other end
closes or its parent dies.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from jellyfish.scheduling.solvers import Solver, solver
from server.planner_messages import Failure, Reply, Request

PR_SET_PDEATHSIG = 1


def serve(pipe: Connection, solve: Solver) -> None:
    """Answer requests until the other end closes."""
    while True:
        try:
            request: Request = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(request, solve))


def _answer(request: Request, solve: Solver) -> Reply | Failure:
    start = time.perf_counter()
    try:
        plan = solve(request.problem, request.seed, request.iterations)
    except Exception as error:  # reported to whoever asked; the process lives on
        return Failure(request.id, f"{type(error).__name__}: {error}")
    return Reply(request.id, plan, (time.perf_counter() - start) * 1000)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    fd, solver_name, parent = sys.argv[1:]
    _die_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server acts
    with Connection(int(fd)) as pipe:
        serve(pipe, solver(solver_name))


if __name__ == "__main__":
    main()
