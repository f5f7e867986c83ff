"""A short soak, whole: real processes, faults of the server's side, checks and figure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.zoo_models import ROOT

KINDS = ("worker dies", "planner crashes", "server stalls", "server is killed", "disk full")


def soak(out: Path, minutes: float, *kinds: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.soak", "--out", str(out), "--minutes", str(minutes)]
    command += ["--kinds", ",".join(kinds)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)


def started_by(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_part_of_the_server_may_fail(tmp_path: Path) -> None:
    running = soak(tmp_path / "soak", 1.6, *KINDS)
    said, _ = running.communicate()
    assert running.returncode == 0, said
    seen = json.loads((tmp_path / "soak" / "soak.json").read_text())
    kinds = {fault["kind"] for fault in seen["faults"]}
    assert kinds >= set(KINDS if os.geteuid() == 0 else KINDS[:-1])
    assert (tmp_path / "soak" / "soak.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_ends_it_with_nothing_left_and_a_table(tmp_path: Path) -> None:
    running = soak(tmp_path / "soak", 5, "worker dies")
    assert running.stdout is not None
    line = running.stdout.readline()  # of the first fault
    while line and "worker dies" not in line:
        line = running.stdout.readline()
    children = started_by(running.pid)
    assert len(children) >= 4
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert "minutes," in said
    assert not any(map(psutil.pid_exists, children))
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
