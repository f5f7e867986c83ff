"""`python -m tests.soak.child FILE MODULE ARGUMENTS`: run a module; it ends when its parent does.

Set here and not between fork and exec: gRPC's threads would make a fork of the soak unsafe. How
many asyncio tasks there are is kept in FILE, since nobody can see that from outside.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import threading
import time
from contextlib import suppress

from client.linux import die_with_parent
from tests.soak.precedence import take_precedence

EVERY_S = 1.0
MARK = "JELLYFISH_SOAK"  # in the environment of all that a soak starts: its pid


def count_tasks(path: str) -> None:
    """Write the number of tasks to `path` once a second, in place: a full disk cannot stop it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    every = asyncio.tasks._all_tasks  # type: ignore[attr-defined]  # of all loops
    while True:
        with suppress(RuntimeError, OSError):  # the set has changed meanwhile; a full disk
            os.pwrite(file, b"%8d" % sum(not task.done() for task in list(every)), 0)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    die_with_parent()
    if os.getppid() != int(os.environ[MARK]):  # it died before the line above
        sys.exit(1)
    take_precedence()
    _, tasks, *sys.argv = sys.argv
    threading.Thread(target=count_tasks, args=(tasks,), name="tasks", daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
