"""Removes code and environments of a host that nobody has used for long."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

MARK = ".jellyfish"  # in each folder that may be removed; its time is that of the last use
KEPT = 3
UNUSED_S = 86400.0  # longer than a cell, since a work directory may be shared by several hosts
_DIGEST = re.compile(r"[0-9a-f]{16}")


def prune(work: Path) -> list[Path]:
    """Remove what is old below WORK/code, WORK/kernels and WORK/venv, and return what was removed.

    Of each, the KEPT folders used last stay, all used within a day, and those of living
    processes. What does not carry our mark, is not ours, or is a link is not touched.
    """
    busy = _busy()
    removed = []
    for kind in ("code", "kernels", "venv"):
        found = sorted(_marked(work / kind), reverse=True)
        for used_s, folder in found[KEPT:]:
            names = {os.fsencode(folder), os.fsencode(folder.resolve())}  # $HOME may be a link
            lives = any(name in text for name in names for text in busy)
            if time.time() - used_s > UNUSED_S and not lives:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def _marked(parent: Path) -> list[tuple[float, Path]]:
    found = []
    for folder in parent.glob("*"):
        if _DIGEST.fullmatch(folder.name) and not folder.is_symlink():
            with suppress(FileNotFoundError, NotADirectoryError):
                mark = (folder / MARK).lstat()
                if mark.st_uid == folder.lstat().st_uid == os.geteuid():
                    found.append((mark.st_mtime, folder))
    return found


def _busy() -> list[bytes]:
    """Return working directories and command lines of the processes that we may look at."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            found.append((process / "cmdline").read_bytes())
            found.append(os.fsencode((process / "cwd").readlink()))
    return found
