"""Locks that the kernel lets go when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jellyfish.errors import RunError


def lock_path() -> Path:
    """Return the lock of this user's testbed on this machine."""
    return Path(tempfile.gettempdir()) / f"jellyfish-testbed-{os.getuid()}.lock"


@contextmanager
def held(path: Path, what: str, timeout_s: float = float("inf")) -> Iterator[None]:
    """Hold the lock file `path`; while another process holds it, say so once and wait.

    Args:
        path: the lock file; made when missing, never removed.
        what: what the lock is for, as the message names it.
        timeout_s: how long to wait.

    Raises:
        RunError: the file cannot be opened, or the wait was too long; the text names the holder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise RunError(f"cannot open the lock file {path}: {error.strerror}") from error
    with file:
        _acquire(file, path, what, timeout_s)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _acquire(file: IO[str], path: Path, what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    told = False
    while not _try(file):
        if time.monotonic() >= deadline:
            raise RunError(f"{what} is in use by process {_holder(path)} ({path})")
        if not told:
            print(f"waiting: {what} is in use by process {_holder(path)}", file=sys.stderr)
            told = True
        time.sleep(0.2)


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    return path.read_text().strip() or "unknown"


@contextmanager
def on_testbed(timeout_s: float = float("inf")) -> Iterator[None]:
    """Hold this machine's testbed: nothing else is measured meanwhile."""
    with held(lock_path(), "the testbed of this machine", timeout_s):
        yield
