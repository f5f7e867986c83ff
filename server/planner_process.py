"""The planner's process: `python -m server.planner_process FD SOLVER PARENT`, for server.planner.

Reads requests off the socket at file descriptor FD and answers each in turn, until the other end
closes or its parent dies.
"""

from __future__ import annotations

import pickle
import socket
import sys
import time

from jellyfish.scheduling.solvers import Solver, solver, warm
from server.linux import die_with_parent, leave_ends_to_parent
from server.pipe import BlockingPipe
from server.planner_messages import Failure, Reply, Request


def serve(pipe: BlockingPipe, solve: Solver) -> None:
    """Answer requests until the other end closes."""
    for message in pipe.messages():
        pipe.send(_answer(pickle.loads(message), solve))


def _answer(request: Request, solve: Solver) -> Reply | Failure:
    start = time.perf_counter()
    try:
        plan = solve(request.problem, request.seed, request.iterations)
    except Exception as error:  # reported to whoever asked; the process lives on
        return Failure(request.id, f"{type(error).__name__}: {error}")
    return Reply(request.id, plan, (time.perf_counter() - start) * 1000)


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    fd, solver_name, parent = sys.argv[1:]
    die_with_parent(int(parent))
    leave_ends_to_parent()
    warm(solver_name)  # requests wait meanwhile: no plan's own time has compiling in it
    with socket.socket(fileno=int(fd)) as ours:
        serve(BlockingPipe(ours), solver(solver_name))


if __name__ == "__main__":
    main()
