"""What a host forgets of what it was given: what is ours, old and used by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiment.pruning import COMPLETE, FILE_UNUSED_S, KEPT, MARK, UNUSED_S, prune

OLD_S = UNUSED_S + 3600
TOKEN = "0123456789abcdef" * 2
SHA256 = "0123456789abcdef" * 4


def aged(path: Path, age_s: float) -> Path:
    then_s = time.time() - age_s
    os.utime(path, (then_s, then_s), follow_symlinks=False)
    return path


def folder(path: Path, age_s: float = OLD_S, mark: str = MARK, complete: bool = True) -> Path:
    (path / "content").mkdir(parents=True)
    (path / mark).touch()
    aged(path / mark, age_s)
    if complete:
        (path / COMPLETE).touch()
    return path


def file(path: Path, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return aged(path, age_s)


def left(paths: list[Path]) -> list[str]:
    return [path.name for path in paths if path.is_symlink() or path.exists()]


@pytest.mark.parametrize("kind", ["code", "kernels", "venv"])
def test_the_last_used_stay_and_older_ones_go(tmp_path: Path, kind: str) -> None:
    every = [folder(tmp_path / kind / f"{i:016x}", OLD_S + i) for i in range(KEPT + 2)]
    assert sorted(prune(tmp_path)) == every[KEPT:]
    assert left(every) == left(every[:KEPT])
    assert len(left(every)) == KEPT
    assert prune(tmp_path) == []


@pytest.mark.parametrize("kind", ["code", "venv"])
def test_what_a_dead_deployment_left_goes_however_little_there_is(
    tmp_path: Path, kind: str
) -> None:
    stays = [
        folder(tmp_path / kind / ".part-Ab3xYz", UNUSED_S - 60),  # of one that goes on
        folder(tmp_path / kind / ".part-Theirs", mark="theirs"),
        folder(tmp_path / kind / ".part-Ab3xYzz"),
        folder(tmp_path / kind / "part-Ab3xYz"),
        folder(tmp_path / kind / ("a" * 16)),
    ]
    goes = folder(tmp_path / kind / ".part-12345Z")
    assert prune(tmp_path) == [goes]
    assert not goes.exists()
    assert left(stays) == [path.name for path in stays]


def test_an_environment_that_was_never_whole_goes_and_keeps_none_away(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    whole = [folder(venv / f"{i:016x}", OLD_S + 10 + i) for i in range(KEPT)]
    half = folder(venv / ("b" * 16), complete=False)
    made_now = folder(venv / ("c" * 16), 60, complete=False)
    assert prune(tmp_path) == [half]
    assert left([*whole, made_now]) == [path.name for path in (*whole, made_now)]


def test_what_a_process_lives_in_stays(tmp_path: Path) -> None:
    half = folder(tmp_path / "venv" / ("b" * 16), complete=False)
    code = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(half / "bin" / "pip")], stdout=subprocess.PIPE
    ) as makes:
        assert makes.stdout is not None
        makes.stdout.readline()
        assert prune(tmp_path) == []
        makes.kill()
    assert prune(tmp_path) == [half]


def test_links_are_not_followed(tmp_path: Path) -> None:
    theirs = folder(tmp_path / "elsewhere" / ("a" * 16))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / ".part-123456").symlink_to(theirs)
    kept = file(tmp_path / "elsewhere" / "x", 2 * FILE_UNUSED_S)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / SHA256).symlink_to(kept)
    aged(tmp_path / "files" / SHA256, 2 * FILE_UNUSED_S)
    assert prune(tmp_path) == []
    assert (theirs / "content").is_dir()


def test_files_that_nobody_used_for_a_week_go(tmp_path: Path) -> None:
    files = tmp_path / "files"
    long_s = FILE_UNUSED_S + 60
    goes = [
        file(files / f"{SHA256}.onnx", long_s),
        file(files / SHA256, long_s),
        file(files / f".{TOKEN}-{SHA256}.avi", OLD_S),  # half of one; its manager is dead
    ]
    stays = [
        file(files / f"{SHA256}.avi", FILE_UNUSED_S - 60),
        file(files / f".{TOKEN}-{SHA256}.npz", UNUSED_S - 60),
        file(files / "notes.txt", long_s),
        file(files / f"{SHA256[1:]}.onnx", long_s),
        file(files / f"{SHA256}.onnx.bak", long_s),
        file(files / f".{TOKEN}", long_s),
        folder(files / ("f" * 64)),
    ]
    aged(stays[-1], long_s)
    assert sorted(prune(tmp_path)) == sorted(goes)
    assert left(goes) == []
    assert left(stays) == [path.name for path in stays]
