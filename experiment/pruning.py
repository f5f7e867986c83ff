"""Removes what a host has been given and nobody has used for long.

Below WORK/code, kernels and venv: folders that carry our mark, whose time is that of the last use.
Below WORK/files: files that are named by their content, whose own time is that. Of both also what
a manager that died left half-made. Nothing else is touched, no link, and nobody else's.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = ".jellyfish"  # in each folder that may be removed
COMPLETE = "complete"  # in an environment that is whole
KINDS = ("code", "kernels", "venv")
KEPT = 3
UNUSED_S = 86400.0  # longer than a cell, since a work directory may be shared by several hosts
FILE_UNUSED_S = 7 * UNUSED_S  # who measures now and then need not copy all clips each time
_DIGEST = re.compile(r"[0-9a-f]{16}")
_PART = re.compile(r"\.part-\w{6}")  # of a folder, as mktemp names it
_FILE = re.compile(r"[0-9a-f]{64}(\.[\w-]+)?")
_FILE_PART = re.compile(rf"\.[0-9a-f]{{32}}-{_FILE.pattern}")  # of a manager: its token


def prune(work: Path) -> list[Path]:
    """Remove what is old below a work directory, and return what was removed.

    Of code, kernels and environments, the KEPT used last stay, all used within a day, and those
    of living processes; of files, those used within a week. Half-made things go after a day.
    """
    old = [path for kind in KINDS for path in _old_folders(work / kind)]
    busy = _busy() if old else []
    removed = [folder for folder in old if not _lives(folder, busy)]
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    for path in _old_files(work / "files"):
        with suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _old_folders(parent: Path) -> Iterator[Path]:
    """Yield the folders that may go unless a process lives in them."""
    whole: list[tuple[float, Path]] = []
    half: list[tuple[float, Path]] = []
    for used_s, folder in _marked(parent):
        made = _DIGEST.fullmatch(folder.name) and (
            parent.name != "venv" or (folder / COMPLETE).exists()
        )
        (whole if made else half).append((used_s, folder))
    for used_s, folder in [*sorted(whole, reverse=True)[KEPT:], *half]:
        if time.time() - used_s > UNUSED_S:
            yield folder


def _marked(parent: Path) -> Iterator[tuple[float, Path]]:
    """Yield our folders, and when each was used last."""
    for folder in parent.glob("*"):
        ours = _DIGEST.fullmatch(folder.name) or _PART.fullmatch(folder.name)
        if ours and not folder.is_symlink():
            with suppress(FileNotFoundError, NotADirectoryError):
                mark = (folder / MARK).lstat()
                if mark.st_uid == folder.lstat().st_uid == os.geteuid():
                    yield mark.st_mtime, folder


def _old_files(parent: Path) -> Iterator[Path]:
    for path in parent.glob("*"):
        if _FILE.fullmatch(path.name):
            limit_s = FILE_UNUSED_S
        elif _FILE_PART.fullmatch(path.name):
            limit_s = UNUSED_S
        else:
            continue
        with suppress(FileNotFoundError):
            found = path.lstat()
            own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if own and time.time() - found.st_mtime > limit_s:
                yield path


def _lives(folder: Path, busy: list[bytes]) -> bool:
    names = {os.fsencode(folder), os.fsencode(folder.resolve())}  # $HOME may be a link
    return any(name in text for name in names for text in busy)


def _busy() -> list[bytes]:
    """Return working directories and command lines of the processes that we may look at."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            found.append((process / "cmdline").read_bytes())
            found.append(os.fsencode((process / "cwd").readlink()))
    return found
