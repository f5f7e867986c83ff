"""A disk in memory, whose files the real writers of records write, read and rename.

Its paths are as much of `pathlib.Path` as they use. A write is there at once, and takes its time
afterwards: whoever plays the writing thread waits for `spent`. Until then it can be undone, for the
process may be killed in the middle of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import inf
from pathlib import PurePosixPath
from random import Random
from types import SimpleNamespace
from typing import Any

STALL_S = 5.0  # of a write, while the disk stalls


@dataclass
class Trouble:
    """What is wrong with a disk for a while.

    Args:
        files: how the names of the files begin that it hits.
        stalls: whether writes take long; otherwise they find no room.
    """

    files: tuple[str, ...]
    stalls: bool
    begin_s: float
    end_s: float = inf

    def hits(self, name: str) -> bool:
        return name.lstrip(".").startswith(self.files)  # a dot: files that are not whole yet


class Disk:
    """Files by path.

    Attributes:
        troubles: all there were.
        hits: writes that failed or took long.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.files: dict[str, bytes] = {}
        self.troubles: list[Trouble] = []
        self.hits = 0

    def bad(self, path: str) -> list[Trouble]:
        """Return what is wrong with a file now; whoever asks is hit by it."""
        name = path.rpartition("/")[2]
        bad = [t for t in self.troubles if t.end_s == inf and t.hits(name)]
        self.hits += bool(bad)
        return bad


class Mount:
    """A disk as one process sees it: what it writes may be under way when it is killed.

    Attributes:
        path: makes paths.
    """

    def __init__(self, disk: Disk) -> None:
        self.files, self._disk, self._rng = disk.files, disk, disk.rng
        self.path: type[SimPath] = type("SimPath", (SimPath,), {"mount": self})
        self._spent_s = 0.0
        self._undo: list[Callable[[], object]] = []

    def spent(self) -> float:
        """Return for how long the writes since the last call take."""
        spent_s, self._spent_s = self._spent_s, 0.0
        return spent_s

    def settle(self) -> None:
        """Say that those writes are done."""
        self._undo.clear()

    def killed(self) -> None:
        """Take back the writes under way: of what grows, a part may be there."""
        while self._undo:
            self._undo.pop()()

    def write(self, path: str, data: bytes) -> int:
        """Append to a file; return how much fitted."""
        before = self.files[path]
        bad = self._disk.bad(path)
        if not all(trouble.stalls for trouble in bad):
            data = data[: self._rng.randrange(len(data))] if self._rng.random() < 0.5 else b""
            if not data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if any(trouble.stalls for trouble in bad):
            self._spent_s += STALL_S
            part = before + data[: self._rng.randrange(len(data) + 1)]
            self._undo.append(partial(self.files.__setitem__, path, part))
        self.files[path] = before + data
        return len(data)

    def rename(self, path: str, target: str) -> None:
        self._may_be_undone(target)
        self.files[target] = self.files.pop(path)

    def remove(self, path: str) -> None:
        self._may_be_undone(path)
        del self.files[path]

    def _may_be_undone(self, path: str) -> None:
        if not self._undo:
            return
        old = self.files.get(path)
        if old is None:
            self._undo.append(partial(self.files.pop, path))
        else:
            self._undo.append(partial(self.files.__setitem__, path, old))


class _File:
    """What is open for appending."""

    def __init__(self, mount: Mount, path: str) -> None:
        self._mount, self._path = mount, path

    def write(self, data: Any) -> int:
        return self._mount.write(self._path, bytes(data))

    def close(self) -> None:
        pass


class SimPath(PurePosixPath):
    """A path on a disk; `Mount.path` makes them."""

    mount: Mount

    def exists(self) -> bool:
        return str(self) in self.mount.files

    def open(self, mode: str, buffering: int = -1) -> Any:
        if mode == "rb":
            return BytesIO(self._content())
        assert (mode, buffering) == ("ab", 0)
        self.mount.files.setdefault(str(self), b"")
        return _File(self.mount, str(self))

    def _content(self) -> bytes:
        if not self.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return self.mount.files[str(self)]

    def touch(self, mode: int, exist_ok: bool) -> None:
        self.mount.files[str(self)] = b""

    def chmod(self, mode: int) -> None:
        pass

    def mkdir(self, parents: bool, exist_ok: bool) -> None:
        pass

    def read_text(self) -> str:
        return self._content().decode()

    def write_text(self, text: str) -> None:
        data = text.encode()
        if self.mount.write(str(self), data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    def replace(self, target: SimPath) -> None:
        self.mount.rename(str(self), str(target))

    def unlink(self, missing_ok: bool = False) -> None:
        if self.exists():
            self.mount.remove(str(self))
        elif not missing_ok:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self._content()))
