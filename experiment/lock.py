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

from jellyfish.errors import RunError


def lock_path() -> Path:
    """Return the lock of this user's testbed on this machine."""
    return Path(tempfile.gettempdir()) / f"jellyfish-testbed-{os.getuid()}.lock"


class FileLock:
    """A lock on a file, which is made when missing and never removed; a context manager.

    Args:
        path: the file. While the lock is held, it says who holds it.
        note: what it says beside the pid.

    Raises:
        RunError: the file cannot be opened.
    """

    def __init__(self, path: Path, note: str = "") -> None:
        self.path, self._note = path, note
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+")
        except OSError as error:
            raise RunError(f"cannot open the lock file {path}: {error.strerror}") from error

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> bool:
        """Take the lock unless another process holds it; return whether it is held now."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} {self._note}".rstrip() + "\n")
        self._file.flush()
        return True

    def release(self) -> None:
        """Let go."""
        self._file.close()

    @property
    def holder(self) -> str:
        """The pid of who holds it, and what it says of itself."""
        return self.path.read_text().strip() or "unknown"


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
    with FileLock(path) as lock:
        _await(lock, what, timeout_s)
        yield


def _await(lock: FileLock, what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    told = False
    while not lock.acquire():
        if time.monotonic() >= deadline:
            raise RunError(f"{what} is in use by process {lock.holder} ({lock.path})")
        if not told:
            print(f"waiting: {what} is in use by process {lock.holder}", file=sys.stderr)
            told = True
        time.sleep(0.2)


@contextmanager
def on_testbed(timeout_s: float = float("inf")) -> Iterator[None]:
    """Hold this machine's testbed: nothing else is measured meanwhile."""
    with held(lock_path(), "the testbed of this machine", timeout_s):
        yield
