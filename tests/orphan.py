"""A program that is no part of what a test runs, and wants a core all the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BURN = "import time\nend = time.monotonic() + 120\nwhile time.monotonic() < end: pass"


@contextmanager
def another_program() -> Iterator[int]:
    """Let one run, an orphan and so nobody's descendant; yield its pid, and kill it at the end."""
    shell = '"$1" -c "$2" >/dev/null 2>&1 & echo $!'
    command = ["setsid", "sh", "-c", shell, "sh", sys.executable, BURN]
    pid = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
