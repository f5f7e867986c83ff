"""The manager's hand on a host, without SSH: what it does, and how it ends what it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.session import expected_ticks
from experiment import cell, collect, grid, processes
from experiment.processes import ProcessId
from jellyfish.files.atomic import write_json
from jellyfish.files.tables import read_table, write_frames
from jellyfish.records import FrameRow

ROOT = Path(__file__).resolve().parents[2]
SLEEPS = [sys.executable, "-c", "import time; time.sleep(120)"]


class Hand:
    """`python -m experiment.remote` in a process, talked to over pipes."""

    def __init__(self, work: Path, *options: str, token: str = "mine") -> None:
        command = [sys.executable, "-m", "experiment.remote", "--work", str(work)]
        self.process = subprocess.Popen(
            [*command, "--owner", "a test", "--token", token, *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(work)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, do: str, **what: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def start(self, folder: Path) -> ProcessId:
        folder.mkdir(parents=True, exist_ok=True)
        what = {"name": "box", "folder": str(folder), "arguments": SLEEPS, "cores": None}
        return ProcessId(*self.ask("start", **what)["ok"])

    def end(self) -> tuple[int, str]:
        """Close its stdin; return its exit code and what it said."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@contextmanager
def hand(work: Path, *options: str, token: str = "mine") -> Iterator[Hand]:
    made = Hand(work, *options, token=token)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate(timeout=30)


def test_it_answers_and_ends_all_when_its_manager_has_gone(tmp_path: Path) -> None:
    with hand(tmp_path) as it:
        assert it.hear()["hello"]["left"] == []
        box = it.start(tmp_path / "runs" / "a")
        assert box.alive
        assert it.ask("exits") == {"ok": {"box": None}}
        assert it.ask("write", path=str(tmp_path / "x"), text="1\n2") == {"ok": None}
        assert it.ask("read", path=str(tmp_path / "x")) == {"ok": "1\n2"}
        assert it.ask("read", path=str(tmp_path / "y")) == {"ok": None}
        os.utime(tmp_path / "x", (0, 0))
        assert it.ask("use", path=str(tmp_path / "x")) == {"ok": True}
        assert (tmp_path / "x").stat().st_mtime > 1e9
        assert it.ask("use", path=str(tmp_path / "y")) == {"ok": False}
        assert it.ask("tail", path=str(tmp_path / "x"), lines=1) == {"ok": "2"}
        assert it.ask("no_such") == {"error": "no request 'no_such'"}
        assert it.ask("_exit") == {"error": "no request '_exit'"}
        assert "No such file" in it.ask("rename", path="/no/such", to="/no/where")["error"]
        assert box.alive
        code, said = it.end()
    assert (code, said.strip()) == (3, "the manager has ended, or its SSH session")
    assert processes.wait_gone([box], 5.0) == []


def test_it_ends_all_when_its_manager_is_silent(tmp_path: Path) -> None:
    with hand(tmp_path, "--silence-s", "0.5") as it:
        it.hear()
        box = it.start(tmp_path / "runs" / "a")
        assert processes.wait_gone([box], 20.0) == []
        assert it.process.wait(10) == 3


def test_the_kernel_ends_all_when_it_is_killed(tmp_path: Path) -> None:
    with hand(tmp_path) as it:
        it.hear()
        box = it.start(tmp_path / "runs" / "a")
        while not (tmp_path / "runs" / "a" / "box.pid").exists():
            assert box.alive
        it.process.kill()
        assert processes.wait_gone([box], 5.0) == []


def test_what_a_dead_run_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "dead"
    folder.mkdir(parents=True)
    with subprocess.Popen(SLEEPS) as left, subprocess.Popen(SLEEPS) as other:
        found, kept = processes.identify(left.pid), processes.identify(other.pid)
        assert found is not None
        assert kept is not None
        (folder / "server.pid").write_text(f"{found.pid} {found.start}\n")
        (folder / "client-0.pid").write_text(f"{kept.pid} {kept.start - 1}\n")  # a pid used anew
        with hand(tmp_path) as it:
            (told,) = it.hear()["hello"]["left"]
        assert told.startswith(f"server {left.pid} ")
        assert left.wait(5) == -15
        assert other.poll() is None
        other.kill()
    assert not folder.exists()


def test_another_manager_waits_or_is_refused(tmp_path: Path) -> None:
    with hand(tmp_path) as first:
        first.hear()
        with hand(tmp_path, token="mine") as same:
            assert "hello" in same.hear()  # a second host of this manager's, on one machine
        with hand(tmp_path, "--refuse", token="other") as refused:
            code, said = refused.end()
            assert code == 1
            assert said.startswith(f"it is in use by process {first.process.pid} of a test")
        with hand(tmp_path, token="other") as waits:
            said = waits.hear()["waiting"]
            assert said == f"it is in use by process {first.process.pid} of a test"
            first.end()
            while "waiting" in (heard := waits.ask("nothing")):
                pass
            assert "hello" in heard


def test_a_cell_says_how_far_the_grid_is(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    every = [one for one in grid.cells(config) if one.world == "measured"]
    said = cell.heading(config, every[1], tmp_path)
    assert said.startswith(f"0 of {len(every)} cells done, ")
    assert said.endswith(f" min left: {every[1].name}")
    before_min = int(said.split()[5])
    write_json(tmp_path / config["scenario"] / "cells" / f"{every[0].name}.json", {})
    said = cell.heading(config, every[1], tmp_path)
    assert said.startswith(f"1 of {len(every)} cells done, ")
    assert 0 < int(said.split()[5]) <= before_min


@pytest.mark.parametrize("name", ["write", "read"])
def test_a_failing_request_is_answered(tmp_path: Path, name: str) -> None:
    with hand(tmp_path) as it:
        it.hear()
        what = {"text": "x"} if name == "write" else {}
        assert "error" in it.ask(name, path=str(tmp_path), **what)
        assert it.ask("exits") == {"ok": {}}


def test_what_is_kept_of_a_failed_run_has_rows_of_clients_that_left_none(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    two = next(c for c in grid.cells(config) if len(c.clients) == 2 and c.world == "measured")
    run = grid.runs(config, two)[0]
    collect.keep_rows(config, run, tmp_path, "b: nothing heard")
    assert not list(tmp_path.iterdir())  # nobody left any
    answered = FrameRow(client=0, frame=0, clip_frame=0, fps=15, slo_ms=100, capture_s=1.0)
    write_frames(tmp_path / "client-0.frames.parquet", [answered])
    collect.keep_rows(config, run, tmp_path, "b: nothing heard")
    rows = read_table(tmp_path / "frames.parquet").to_pandas()
    ticks = expected_ticks(config["client"]["stream_s"], two.clients[1].fps)
    assert rows.client.tolist() == [0] + [1] * ticks
    assert set(rows.outcome) == {"lost"}
    assert set(rows.reason[1:]) == {"the client left no rows: b: nothing heard"}
    assert set(rows.run) == {run.key}
