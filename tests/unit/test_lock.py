"""Locks: nobody can have another file overwritten, or a lock taken away, by what they plant."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from experiment.lock import FileLock, held, lock_path
from jellyfish.errors import RunError

OTHER = 65534  # nobody's, or somebody's: not ours
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)
    return tmp_path


def own_folder(temporary: Path) -> Path:
    return temporary / f"jellyfish-{os.getuid()}"


def test_a_lock_lies_in_a_folder_of_ones_own(temporary: Path) -> None:
    path = lock_path()
    assert path == lock_path()  # again: it is there
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with FileLock(path, "a test") as lock:
        assert lock.acquire()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with FileLock(path) as second:
            assert not second.acquire()
            assert second.holder == f"{os.getpid()} a test"


def test_a_lock_is_taken_again_after_a_longer_note(tmp_path: Path) -> None:
    for note in ("a long note", "short"):
        with FileLock(tmp_path / "lock", note) as lock:
            assert lock.acquire()
            assert lock.holder == f"{os.getpid()} {note}"


def test_a_planted_link_is_not_followed(temporary: Path) -> None:
    victim = temporary / "victim"
    victim.write_text("precious\n")
    path = lock_path()
    path.symlink_to(victim)
    with pytest.raises(RunError, match=r"testbed\.lock: it is a symbolic link"), held(path, "it"):
        pass
    path.unlink()
    path.hardlink_to(victim)
    with pytest.raises(RunError, match="is not yours alone"), held(path, "it"):
        pass
    assert victim.read_text() == "precious\n"
    path.unlink()
    path.symlink_to(temporary / "made-by-us")
    with pytest.raises(RunError, match="symbolic link"), held(path, "it"):
        pass
    assert not (temporary / "made-by-us").exists()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_file_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(RunError, match=r"lock file .*/lock.* (Is a directory|no regular file)"):
        FileLock(path)


@as_root
def test_a_file_of_somebody_elses_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("theirs")
    os.chown(path, OTHER, OTHER)
    with pytest.raises(RunError, match="is not yours alone"):
        FileLock(path)
    assert path.read_text() == "theirs"
    os.chown(tmp_path, OTHER, OTHER)  # who owns the folder could put any file there
    with FileLock(path) as lock:
        assert lock.acquire()


@pytest.mark.parametrize("planted", ["link", "file", "open to all", "theirs"])
def test_a_planted_folder_is_not_used(temporary: Path, planted: str) -> None:
    folder, elsewhere = own_folder(temporary), temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if planted == "link":
        folder.symlink_to(elsewhere)
    elif planted == "file":
        folder.write_text("")
    else:
        folder.mkdir(mode=0o700)
        if planted == "open to all":
            folder.chmod(0o777)
        elif os.geteuid() == 0:
            os.chown(folder, OTHER, OTHER)
        else:
            pytest.skip("only root gives folders away")
    with pytest.raises(RunError, match=r"jellyfish-\d+, for locks, is not a folder that is yours"):
        lock_path()
    assert not list(elsewhere.iterdir())
