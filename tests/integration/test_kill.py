"""Kill a workflow run with SIGKILL at several places: the next one finishes, nothing is left.

A workflow of two jobs, one of them long with a background process of its own, under the launcher
as `make` calls it, and under Snakemake alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiment import leftovers, processes
from experiment.processes import ProcessId

pytestmark = pytest.mark.beside

SNAKEFILE = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from experiment.leftovers import enter
enter(Path.cwd())

rule all:
    input: "second"

rule first:
    output: "first"
    shell: "echo x >> first.count; touch {{output}}"

rule second:
    input: "first"
    output: "second"
    script: "second.py"
"""
SCRIPT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from experiment.guard import stage
from experiment.hosts import LocalConnection, Process
with stage("second"):
    output = Path(snakemake.output[0])
    output.write_text("half")  # what a killed run must not leave behind as done
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    options = dict(name="box", folder=Path.cwd(), root=Path({root!r}))
    with Process(LocalConnection(), argv, **options) as box:
        Path("running").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.05)
    output.write_text("whole")
"""


@pytest.fixture
def workflow(tmp_path: Path, root: Path) -> Iterator[Path]:
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(root=str(root)))
    (tmp_path / "second.py").write_text(SCRIPT.format(root=str(root)))
    (tmp_path / "make").write_text('#!/bin/sh\n"$@"\nexit $?\n')
    (tmp_path / "make").chmod(0o755)
    yield tmp_path
    processes.end(alive(tmp_path), 0.0)


def alive(directory: Path) -> list[ProcessId]:
    """Every process of a run in `directory`, background ones too."""
    mark = str(directory.resolve())
    return [
        process
        for process in processes.every()
        if process.alive
        and (
            processes.environment(process.pid).get(leftovers.MARK) == mark
            or processes.directory(process.pid) == directory.resolve()
        )
    ]


def start(directory: Path, root: Path, *command: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != leftovers.MARK}
    environment |= {"PYTHONPATH": str(root), "XDG_CACHE_HOME": str(directory / ".cache")}
    return subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


LAUNCH = (sys.executable, "-m", "experiment.launch", "--cores", "1")
SNAKEMAKE = (sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete")


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def pid_of(directory: Path, *words: str) -> int:
    (found,) = (
        process.pid
        for process in alive(directory)
        if all(word in processes.command(process.pid) for word in words)
    )
    return found


VICTIMS = {
    "make": lambda directory, process: process.pid,
    "launch": lambda directory, process: pid_of(directory, "-m", "experiment.launch"),
    "snakemake": lambda directory, process: pid_of(directory, "-m", "snakemake"),
}


@pytest.mark.parametrize(
    ("command", "victim"),
    [
        (("./make", *LAUNCH), "make"),
        (LAUNCH, "launch"),
        (LAUNCH, "snakemake"),
        (SNAKEMAKE, "snakemake"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].rsplit("/", 1)[-1],
)
def test_a_killed_run_leaves_nothing_and_the_next_one_finishes(
    workflow: Path, root: Path, command: tuple[str, ...], victim: str
) -> None:
    first = start(workflow, root, *command)
    until((workflow / "running").exists)
    assert (workflow / "second").read_text() == "half"
    os.kill(VICTIMS[victim](workflow, first), signal.SIGKILL)
    first.communicate(timeout=30)
    assert first.returncode != 0
    until(lambda: not alive(workflow), timeout_s=15.0)

    (workflow / "go").touch()
    second = start(workflow, root, *command)
    shown, _ = second.communicate(timeout=60)
    assert second.returncode == 0, shown
    assert (workflow / "second").read_text() == "whole"
    assert (workflow / "first.count").read_text() == "x\n"  # what was finished is not made again
    assert alive(workflow) == []


def test_ctrl_c_ends_a_run_and_says_so(workflow: Path, root: Path) -> None:
    run = start(workflow, root, *LAUNCH)
    until((workflow / "running").exists)
    run.send_signal(signal.SIGINT)
    shown, _ = run.communicate(timeout=30)
    assert run.returncode == 128 + signal.SIGINT
    assert "SIGINT: ending the run" in shown
    assert alive(workflow) == []
    again = subprocess.run(
        [*SNAKEMAKE, "-n"], cwd=workflow, capture_output=True, text=True, check=True
    )
    assert "second" in again.stdout  # what was under way is not believed


def test_a_second_run_waits_for_the_first(workflow: Path, root: Path) -> None:
    first = start(workflow, root, *SNAKEMAKE)
    until((workflow / "running").exists)
    second = start(workflow, root, *LAUNCH)
    assert second.stdout is not None
    assert "waiting: process" in second.stdout.readline()
    (workflow / "go").touch()
    first.communicate(timeout=30)
    shown, _ = second.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "Nothing to be done" in shown


def test_a_leftover_that_outlived_everything_is_ended_by_the_next_run(
    workflow: Path, root: Path
) -> None:
    """An unguarded stage outlives a killed Snakemake; it must not write beside the next run."""
    (workflow / "second.py").write_text(
        "import time\nfrom pathlib import Path\nPath('running').write_text('x')\n"
        "while not Path('go').exists():\n    time.sleep(0.05)\n"
        "Path(snakemake.output[0]).write_text('whole')\n"
    )
    first = start(workflow, root, *SNAKEMAKE)
    until((workflow / "running").exists)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert first.stdout is not None
    first.stdout.close()
    (orphan,) = (p for p in alive(workflow) if "second.py" in processes.command(p.pid)[-1])
    (workflow / "running").unlink()
    second = start(workflow, root, *SNAKEMAKE)
    until((workflow / "running").exists)
    assert not orphan.alive
    (workflow / "go").touch()
    shown, _ = second.communicate(timeout=30)
    assert second.returncode == 0, shown
    assert "a killed run left process" in shown
    assert "left Snakemake's lock" in shown
