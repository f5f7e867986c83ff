from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from jellyfish.scheduling import jellyfish
from jellyfish.scheduling.kernels.compiling import compiled

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "config" / "examples" / "problem.json"


Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Return what compiles a small function, or reads it from disk, as a new process would.

    It takes the folder of the source and returns how often the disk had what was asked for.
    """
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "small.py").write_text("def double(x):\n    return 2 * x\n")

    def call(folder: Path = tmp_path) -> int:
        source = folder / "small.py"
        spec = importlib.util.spec_from_file_location("small", source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = compiled(module.double)
        assert function(21) == 42
        return sum(function.stats.cache_hits.values())

    assert call() == 0
    assert call() == 1
    return call


def test_a_checkout_elsewhere_reads_what_was_compiled_unless_its_source_differs(
    start: Start, tmp_path: Path
) -> None:
    for name, source, hits in (("same", "2 * x", 1), ("other", "x * 2", 0), ("again", "2 * x", 0)):
        (tmp_path / name).mkdir()
        text = f"def double(x):\n    return {source}\n"
        (tmp_path / name / "small.py").write_text(text)
        assert start(tmp_path / name) == hits, name


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [halve, empty, blank, Path.unlink])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_broken_entry_is_compiled_anew_and_read_from_then_on(
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    harm: Callable[[Path], None],
) -> None:
    (entry,) = tmp_path.rglob(f"*.{kind}")
    harm(entry)
    assert start() == 0
    said = "unreadable" in caplog.text and "double" in caplog.text
    assert said == (harm is not Path.unlink)  # what is missing is no surprise
    caplog.clear()
    assert start() == 1
    assert not caplog.text


def test_where_nothing_can_be_kept_functions_work(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for entry in tmp_path.rglob("*.nb*"):
        entry.unlink()
        entry.mkdir()
    assert start() == 0
    assert "not kept" in caplog.text


def test_a_plan_is_made_although_what_was_compiled_is_broken(tmp_path: Path) -> None:
    jellyfish.warm()
    now = Path(numba.config.CACHE_DIR)
    shutil.copytree(now, tmp_path / now.name)
    broken = [*tmp_path.rglob("moving.keep-*.nbc"), *tmp_path.rglob("describing.describe-*.nbi")]
    assert len(broken) == 2
    for entry in broken:
        halve(entry)
    said = [plan(tmp_path), plan(tmp_path)]
    assert "compiled code of" in said[0]
    assert not said[1]


def plan(cache: Path) -> str:
    """Plan the example in another process; return what it says beside the plan."""
    done = subprocess.run(
        [sys.executable, "-m", "experiment.plan", str(EXAMPLE)],
        cwd=REPOSITORY,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["effectiveness"] == 1.0
    return done.stderr
