"""Locks that the kernel lets go when their holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jellyfish.errors import RunError

# A FIFO in its place would hold whoever opens it, but for O_NONBLOCK.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def lock_path() -> Path:
    """Return the lock of this user's testbed on this machine, in a folder of the user's own.

    It lies in the temporary directory: XDG_RUNTIME_DIR is not set in every session of a user, and
    its files go at logout, so that two processes would hold two locks.

    Raises:
        RunError: it cannot be made, or what is there is not such a folder.
    """
    folder = Path(tempfile.gettempdir()) / f"jellyfish-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RunError(f"cannot make {folder}, for locks: {error.strerror}") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RunError(
            f"{folder}, for locks, is not a folder that is yours alone (drwx------); remove it, "
            "or have its owner do so, or set TMPDIR"
        )
    return folder / "testbed.lock"


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise RunError(f"cannot open the lock file {path}: {why}") from error
    found, owners = os.fstat(file), (os.geteuid(), path.parent.stat().st_uid)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in owners:
        return file
    os.close(file)
    raise RunError(f"the lock file {path} is not yours alone, or is no regular file; remove it")


class FileLock:
    """A lock on a file, which is made when missing and never removed; a context manager.

    No link is followed, and the file must belong to this user or to its folder's owner: else
    somebody could have another file overwritten.

    Args:
        path: the file. While the lock is held, it says who holds it.
        note: what it says beside the pid.

    Raises:
        RunError: the file cannot be opened, or is not one for locks.
    """

    def __init__(self, path: Path, note: str = "") -> None:
        self.path, self._note = path, note
        self._file = os.fdopen(_open(path), "r+")

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
        self._file.seek(0)
        self._file.write(f"{os.getpid()} {self._note}".rstrip() + "\n")
        self._file.flush()
        return True

    def release(self) -> None:
        """Let go."""
        self._file.close()

    @property
    def holder(self) -> str:
        """The pid of who holds it, and what it says of itself."""
        said = os.pread(self._file.fileno(), 4096, 0).decode(errors="replace")
        return said.strip() or "unknown"


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
