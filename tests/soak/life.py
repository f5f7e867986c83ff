"""A server's process from its start to its end, and the disk that it writes to."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json, write_json
from tests.soak.child import MARK
from tests.zoo_models import ROOT

READY_S, END_S, GONE_S = 60.0, 10.0, 3.0  # with a load of 4 on the machine
DISK_BYTES = 64 << 20


def environment() -> dict[str, str]:
    """Return the environment of a process that a soak starts."""
    return {**os.environ, MARK: str(os.getpid())}


def tasks_file(log: Path) -> Path:
    """Return where the process that writes this log has its number of tasks."""
    return log.with_suffix(".tasks")


def spawn(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE ARGUMENTS` in a group of its own; it dies with this process."""
    with log.open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.soak.child", str(tasks_file(log)), module, *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )


def marked() -> list[psutil.Process]:
    """Return all processes that this soak has started and that are there, zombies left out."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(os.getpid()):
                found.append(process)
    return found


class Life:
    """One server process.

    Args:
        job: what to serve; `out_dir` and `port` are added.
        out: where it writes; its log, too.
        port: where it listens; 0 for any.
        seed: of its random numbers.
        module: what is run, as `python -m MODULE --job JOB.json`.
    """

    def __init__(
        self, job: dict[str, Any], out: Path, port: int, seed: int, module: str = "server"
    ) -> None:
        self.out, self.port = out, port
        out.mkdir(parents=True)
        write_json(
            out / "server.job.json", {**job, "out_dir": str(out), "port": port, "seed": seed}
        )
        self.killed = False
        self.begin_s, self.ready_s = time.monotonic(), float("nan")
        self.process = spawn(module, "--job", str(out / "server.job.json"), log=self.log)

    @property
    def log(self) -> Path:
        """What it says."""
        return self.out / "server.log"

    async def ready(self) -> None:
        """Wait until it serves.

        Raises:
            RunError: it does not.
        """
        path = self.out / "server.ready.json"
        while not path.exists():
            if self.process.poll() is not None:
                raise RunError(f"the server does not start: {self.log.read_text()[-2000:]}")
            if time.monotonic() - self.begin_s > READY_S:
                raise RunError(f"the server is not ready after {READY_S:g} s")
            await asyncio.sleep(0.05)
        self.port, self.ready_s = int(read_json(path)["port"]), time.monotonic()

    def children(self, module: str = "") -> list[psutil.Process]:
        """Return its workers and planner, or those that run `module`."""
        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [c for c in children if module in " ".join(_command(c))]
        return []

    def worker(self, number: int) -> psutil.Process | None:
        """Return the worker of a GPU, which its last argument names."""
        named = (
            c for c in self.children("worker_child") if _command(c)[-1:] == [f"worker-{number}"]
        )
        return next(named, None)

    def kill(self) -> None:
        """End it at once."""
        self.killed = True
        self.process.kill()
        self.process.wait()

    async def stop(self, twice: bool = False) -> int | None:
        """Send SIGTERM to its group, as systemd does; return its exit code, None if it hangs."""
        os.killpg(self.process.pid, signal.SIGTERM)
        if twice:
            await asyncio.sleep(0.1)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
        until_s = time.monotonic() + END_S
        while self.process.poll() is None:
            if time.monotonic() > until_s:
                self.kill()
                return None
            await asyncio.sleep(0.02)
        return self.process.returncode


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


async def left_over(processes: list[psutil.Process]) -> list[str]:
    """Return those that are still there after a while, as pid and command; end them."""
    until_s = time.monotonic() + GONE_S
    while time.monotonic() < until_s and any(map(is_there, processes)):
        await asyncio.sleep(0.05)
    left = [process for process in processes if is_there(process)]
    names = [f"{p.pid} ({' '.join(_command(p)[1:4])})" for p in left]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return names


def is_there(process: psutil.Process) -> bool:
    """Return whether it is neither gone nor a zombie."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def unmount(path: Path) -> None:
    """Unmount what is mounted there, if anything is."""
    if path.is_mount():
        subprocess.run(["umount", "-l", str(path)], check=True)


class Disk:
    """Where servers write: a small tmpfs of its own for root, else a plain folder.

    Args:
        path: where.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.own = path, False
        path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "soak", str(path)]
            self.own = subprocess.run(command, check=False, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Leave no room."""
        for size in (1 << 16, 1 << 12):
            with suppress(OSError), (self.path / "filler").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(size))

    def free(self) -> None:
        """Give the room back."""
        (self.path / "filler").unlink(missing_ok=True)

    def close(self, keep: Path) -> None:
        """Move all that was written to `keep`, and unmount."""
        self.free()
        shutil.copytree(self.path, keep, dirs_exist_ok=True)
        if self.own:
            unmount(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
