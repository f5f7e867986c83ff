"""When clients on hosts stream: for tests that disturb them in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 400.0  # a host's first scheduler is compiled meanwhile, whatever else runs
GO = "runs/*/go"  # what a host's clients are told to begin by, below its work directory


class Streams:
    """Tells when clients stream in a run that begins from now on.

    Args:
        folder: where the hosts' work directories lie.
        works: their pattern there.
        hosts: how many hosts have clients.
    """

    def __init__(self, folder: Path, works: str, hosts: int = 2) -> None:
        self._folder, self._pattern, self._hosts = folder, f"{works}/{GO}", hosts
        self._before = self._told()  # by a run that was killed, say

    def _told(self) -> set[tuple[Path, int]]:
        found = set()
        for path in self._folder.glob(self._pattern):
            with suppress(FileNotFoundError):
                found.add((path, path.stat().st_mtime_ns))
        return found

    def wait(self, into_s: float, alive: Callable[[], bool] = lambda: True) -> None:
        """Return `into_s` after clients on all hosts were told to begin.

        Args:
            into_s: how long to let them stream.
            alive: whether there is anything to wait for.
        """
        deadline = time.monotonic() + PATIENCE_S
        while len(self._told() - self._before) < self._hosts:
            assert alive(), "ended before its clients streamed"
            assert time.monotonic() < deadline, "no client streamed"
            time.sleep(0.05)
        time.sleep(into_s)
