"""Connections and background processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from invoke.exceptions import UnexpectedExit

from experiment import processes
from experiment.hosts import LocalConnection, Process
from jellyfish.errors import RunError

PYTHON = sys.executable


def process(tmp_path: Path, root: Path, text: str, **options: object) -> Process:
    cores = options.pop("cores", None)
    assert cores is None or isinstance(cores, tuple)
    arguments = [PYTHON, "-uc", text]
    return Process(
        LocalConnection(), arguments, name="box", folder=tmp_path, root=root, cores=cores
    )


def test_a_local_connection_runs_puts_and_gets(tmp_path: Path) -> None:
    with LocalConnection() as host:
        assert host.run("echo a b", hide=True, in_stream=False).stdout == "a b\n"
        with pytest.raises(UnexpectedExit):
            host.run("exit 3", hide=True, in_stream=False)
        source, folder = tmp_path / "source", tmp_path / "folder"
        source.write_text("x")
        folder.mkdir()
        host.put(str(source), str(folder))
        host.get(str(folder / "source"), str(tmp_path / "back"))
        host.put(str(source), str(source))  # the same file: nothing to do
        assert (tmp_path / "back").read_text() == "x"


def test_a_process_runs_in_the_background_and_is_ended_by_pid(tmp_path: Path, root: Path) -> None:
    core = min(os.sched_getaffinity(0))
    text = (
        "import os, time; print(os.getcwd(), os.sched_getaffinity(0), flush=True); time.sleep(60)"
    )
    with process(tmp_path, root, text, cores=(core,)) as box:
        pid, start = map(int, box.pid_file.read_text().split())
        found = processes.ProcessId(pid, start)
        assert found.alive
        assert os.getsid(pid) == pid  # a Ctrl-C at the terminal does not reach it
        assert box.running
        while not box.log.read_text().strip():
            assert box.wait(0.05) is None
        assert box.log_tail() == f"{root} {{{core}}}"
    assert not found.alive
    assert box.exit_code == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed_with_its_group(
    tmp_path: Path, root: Path
) -> None:
    text = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"
        "time.sleep(60)"
    )
    box = process(tmp_path, root, text).start()
    while not box.log.read_text().strip():
        assert box.wait(0.05) is None
    child = processes.identify(int(box.log_tail()))
    assert child is not None
    assert box.end(grace_s=0.2) == -signal.SIGKILL
    assert processes.wait_gone([child], 5.0) == []


def test_a_process_that_fails_shows_its_exit_code_and_log(tmp_path: Path, root: Path) -> None:
    box = process(tmp_path, root, "import sys; print('one'); sys.exit('no such thing')").start()
    assert box.wait(10.0) == 1
    assert not box.running
    assert box.log_tail(1) == "no such thing"
    assert box.end() == 1


def test_what_cannot_start_says_why(tmp_path: Path, root: Path) -> None:
    with pytest.raises(RunError, match=r"box did not start on localhost: .*No such file"):
        process(tmp_path / "missing", root, "pass").start()


def test_a_process_dies_with_who_started_it(tmp_path: Path, root: Path) -> None:
    text = (
        "import time; from pathlib import Path; from experiment.hosts import *\n"
        f"box = Process(LocalConnection(), [{PYTHON!r}, '-c', 'import time; time.sleep(60)'],"
        f" name='box', folder=Path({str(tmp_path)!r}), root=Path({str(root)!r})).start()\n"
        "print(box.pid_file.read_text(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [PYTHON, "-c", text], stdout=subprocess.PIPE, text=True, cwd=root
    ) as manager:
        assert manager.stdout is not None
        pid, start = map(int, manager.stdout.readline().split())
        manager.kill()
    assert processes.wait_gone([processes.ProcessId(pid, start)], 5.0) == []


def test_a_leftover_under_the_same_pid_file_is_ended(tmp_path: Path, root: Path) -> None:
    with process(tmp_path, root, "import time; time.sleep(60)") as first:
        before = first.pid_file.read_text()
        with process(tmp_path, root, "import time; time.sleep(60)") as second:
            assert second.pid_file.read_text() != before
            assert first.wait(5.0) == -signal.SIGKILL
            assert second.running
