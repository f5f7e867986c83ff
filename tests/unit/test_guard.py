"""Processes, locks and the guard, with small real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiment import leftovers, processes
from experiment.guard import stage
from experiment.lock import held
from jellyfish.errors import DataError, RunError

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        yield process
        process.kill()


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_process_is_its_pid_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.identify(sleeper.pid)
    assert found is not None
    assert found.alive
    assert not processes.ProcessId(found.pid, found.start + 1).alive
    assert found in processes.descendants(os.getpid())
    assert processes.ancestors(sleeper.pid)[0].pid == os.getpid()
    assert processes.command(sleeper.pid)[-1] == SLEEP


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.identify(sleeper.pid)
    assert found is not None
    assert processes.end([found], grace_s=5.0) == []
    assert not found.alive  # not reaped yet
    assert sleeper.wait() == -signal.SIGTERM


def test_who_ignores_sigterm_is_killed() -> None:
    text = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); {SLEEP}"
    with subprocess.Popen([sys.executable, "-uc", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = processes.identify(process.pid)
        assert found is not None
        assert processes.end([found], grace_s=0.2) == [found]
        assert process.wait() == -signal.SIGKILL


def test_a_signal_never_reaches_a_pid_used_anew(sleeper: subprocess.Popen[bytes]) -> None:
    found = processes.identify(sleeper.pid)
    assert found is not None
    processes.send(processes.ProcessId(found.pid, found.start - 1), signal.SIGKILL)
    assert found.alive


def test_a_lock_is_waited_for_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "a.lock"
    text = (
        "import sys, time; from pathlib import Path; from experiment.lock import held\n"
        f"with held(Path({str(lock)!r}), 'it'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        message = f"the box is in use by process {process.pid}"
        with pytest.raises(RunError, match=message), held(lock, "the box", timeout_s=0.3):
            pass
        assert f"waiting: the box is in use by process {process.pid}" in capsys.readouterr().err
        process.kill()
        with held(lock, "the box", timeout_s=5.0):  # a killed holder holds nothing
            assert lock.read_text().strip() == str(os.getpid())


@pytest.mark.parametrize(
    ("command", "run", "above"),
    [
        (["/v/bin/python", "/v/bin/snakemake", "--cores", "2"], True, True),
        (["python", "-u", "-m", "snakemake", "-n"], True, True),
        (["python", "-m", "experiment.launch", "fig_8"], True, True),
        (["python", "-m", "snakemake", "--mode", "subprocess"], False, True),
        (["python", "-m", "snakemake", "x.npz", "--mode", "remote"], False, True),
        (["/usr/bin/make", "test"], False, True),
        (["python", ".snakemake/scripts/tmp1.cell.py"], False, False),
        (["vim", "workflow/Snakefile"], False, False),
        ([], False, False),
    ],
)
def test_command_lines(command: list[str], run: bool, above: bool) -> None:
    assert leftovers.runs_workflow(command) is run
    assert leftovers.belongs_above(command) is above


def test_leftovers_are_found_by_their_mark_and_ended(tmp_path: Path) -> None:
    # Started through a shell that ends: an orphan, as those of a killed run are.
    environment = {**os.environ, leftovers.MARK: str(tmp_path)}
    command = f"'{sys.executable}' -c '{SLEEP}' >/dev/null 2>&1 & echo $!"
    shown = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, check=True
    )
    orphan = processes.identify(int(shown.stdout))
    assert orphan is not None
    try:
        wait_for(lambda: leftovers.leftovers(tmp_path) == [orphan])
        assert leftovers.leftovers(tmp_path.parent) == []
        locks = tmp_path / ".snakemake" / "locks"
        locks.mkdir(parents=True)
        (locks / "0.input.lock").touch()
        told: list[str] = []
        leftovers.clean_up(tmp_path, told.append)
        assert not orphan.alive
        assert not list(locks.iterdir())
        assert str(orphan.pid) in told[0]
        assert "lock" in told[1]
    finally:
        processes.end([orphan], 0.0)


GUARDED = """
import sys, time
sys.path.insert(0, {root!r})
from experiment.guard import guarded
with guarded(1.0):
    print("ready", flush=True)
    try:
        time.sleep(60)
    finally:
        open({out!r}, "w").write("torn down")
        {after}
"""


def start_below_make(
    tmp_path: Path, root: Path, after: str
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a process named make with a shell below it and a guarded script below that."""
    out = tmp_path / "out"
    script = tmp_path / "guarded.py"
    script.write_text(GUARDED.format(root=str(root), out=str(out), after=after))
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\nsh -c \"'{sys.executable}' '{script}'; true\"; true\n")
    make.chmod(0o755)
    process = subprocess.Popen([make], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process, out


def test_a_guarded_stage_ends_when_what_is_above_is_killed(tmp_path: Path, root: Path) -> None:
    make, out = start_below_make(tmp_path, root, after="pass")
    below = processes.descendants(make.pid)
    make.kill()
    _, shown = make.communicate()  # until the script, too, has closed the pipes
    assert processes.wait_gone(below, 5.0) == []
    assert out.read_text() == "torn down"
    assert f"process {make.pid}".encode() in shown


def test_a_stage_that_hangs_in_its_end_is_ended_all_the_same(tmp_path: Path, root: Path) -> None:
    make, out = start_below_make(tmp_path, root, after="time.sleep(60)")
    below = processes.descendants(make.pid)
    make.kill()
    make.communicate()
    assert processes.wait_gone(below, 15.0) == []
    assert out.read_text() == "torn down"


def test_a_stage_shows_an_error_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(SystemExit, match=r"error in profiles: a\.json is missing"),
        stage("profiles"),
    ):
        raise DataError("a.json is missing")
    with pytest.raises(SystemExit, match=r"No space left on device \(/x\)"), stage("cell"):
        raise OSError(28, "No space left on device", "/x")
    assert capsys.readouterr().err == ""


def test_a_stage_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stage("outer"), stage("inner"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
