"""The planner's process: `python -m server.planner_process FD PARENT SOLVER`, for server.planner.

Reads requests off the socket at file descriptor FD and answers each in turn, until the other end
closes or its parent dies.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from jellyfish.errors import DeviceError
from jellyfish.scheduling.solvers import Solver, solver, warm
from server.linux import die_with_parent, leave_ends_to_parent
from server.pipe import BlockingPipe, unpack

HELLO = -1  # no call's number


def serve(pipe: BlockingPipe, solve: Solver) -> None:
    """Answer (number, "plan", arguments) with (number, (plan, ms)) until the other end closes.

    The first message, unasked, and the answer to "ready" tell that it can plan.
    """
    pipe.send((HELLO, None))
    for parts in pipe.messages():
        number, method, arguments = unpack(parts)
        pipe.send((number, _answer(solve, *arguments) if method == "plan" else None))


def _answer(solve: Solver, *arguments: Any) -> Any:
    start = time.perf_counter()
    try:
        plan = solve(*arguments)
    except Exception as error:  # reported to whoever asked; the process lives on
        return DeviceError(f"planner: {type(error).__name__}: {error}")
    return plan, (time.perf_counter() - start) * 1000


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    fd, parent, solver_name = sys.argv[1:]
    die_with_parent(int(parent))
    leave_ends_to_parent()
    warm(solver_name)  # requests wait meanwhile: no plan's own time has compiling in it
    with socket.socket(fileno=int(fd)) as ours:
        serve(BlockingPipe(ours), solver(solver_name))


if __name__ == "__main__":
    main()
