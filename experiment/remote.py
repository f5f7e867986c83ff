"""The manager's hand on a host: `python -m experiment.remote OPTIONS`, over SSH.

It holds the host's lock, ends what a dead run left, starts the processes of a run and tells of
them: one JSON object a line, requests on stdin, answers on stdout. It is a lease: when stdin ends
or says nothing for too long, the manager or the way to it is gone, and every process is ended.
Should it be killed itself, the kernel kills what it started.

    {"do": NAME, ...}  ->  {"ok": VALUE} or {"error": TEXT}; the functions are `Hand`'s methods
    before that: {"waiting": TEXT} while another manager holds the host, then {"hello": {...}}
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiment import processes, provenance
from experiment.lock import FileLock, lock_path
from experiment.processes import ProcessId
from experiment.pruning import prune
from jellyfish.errors import JellyfishError, RunError
from jellyfish.files.atomic import whole_file

GRACE_S = 8.0
SILENCE_S = 10.0
POLL_S = 0.2
RUNS = "runs"
_READ_BYTES = 1 << 16


class ManagerGoneError(Exception):
    """The manager has gone, or this process was told to end."""


class Manager:
    """The other end of stdin and stdout.

    Args:
        silence_s: after so long without a word it is gone.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._heard_s = time.monotonic()
        self._text = b""
        self._wake, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def tell(self, **value: Any) -> None:
        """Say one line.

        Raises:
            ManagerGoneError: nobody reads it.
        """
        try:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()
        except OSError as error:
            raise ManagerGoneError(f"the manager does not read: {error}") from error

    def requests(self, wait_s: float) -> Iterator[dict[str, Any]]:
        """Yield what it has asked, after waiting for at most `wait_s`.

        Raises:
            ManagerGoneError: it has ended, says nothing any more, or a signal came.
        """
        ready, _, _ = select.select([0, self._wake], [], [], wait_s)
        if self._wake in ready:
            raise ManagerGoneError("told to end by a signal")
        now = time.monotonic()
        if 0 in ready:
            data = os.read(0, _READ_BYTES)
            if not data:
                raise ManagerGoneError("the manager has ended, or its SSH session")
            self._heard_s = now
            *lines, self._text = (self._text + data).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
        elif now - self._heard_s > self._silence_s:
            raise ManagerGoneError(f"the manager has been silent for {self._silence_s:g} s")


class Hand:
    """What the manager can ask for; each public method is one request.

    Args:
        root: the code's directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked and return what to say."""
        name = str(request.pop("do", "nothing"))
        do: Callable[..., Any] | None = None if name[0] == "_" else getattr(self, name, None)
        try:
            return {"error": f"no request {name!r}"} if do is None else {"ok": do(**request)}
        except OSError as error:
            return {"error": f"{error.strerror or error} ({error.filename or name})"}

    def nothing(self) -> None:
        """Be heard."""

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, whole."""
        with whole_file(Path(path), mode) as temporary:
            temporary.write_text(text)

    def read(self, path: str) -> str | None:
        """Return a file's text; None where there is none."""
        with suppress(FileNotFoundError):
            return Path(path).read_text()
        return None

    def tail(self, path: str, lines: int) -> str:
        """Return the last lines of a file; empty where there is none."""
        with suppress(FileNotFoundError):
            return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
        return ""

    def make(self, folder: str) -> None:
        """Make a folder anew."""
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir(parents=True)

    def rename(self, path: str, to: str) -> None:
        """Give a file that is whole its name."""
        Path(path).replace(to)

    def discard(self, path: str) -> None:
        """Remove a file."""
        Path(path).unlink(missing_ok=True)

    def remove(self, folder: str) -> None:
        """Remove a folder."""
        shutil.rmtree(folder, ignore_errors=True)

    def use(self, path: str) -> bool:
        """Note that a file is used now; return whether it is there."""
        with suppress(FileNotFoundError, PermissionError):  # of another user, who notes it
            os.utime(path)
        return Path(path).exists()

    def files(self, folder: str) -> list[str]:
        """Return the names of the files in a folder; none where there is no folder."""
        with suppress(FileNotFoundError):
            return sorted(path.name for path in Path(folder).iterdir() if path.is_file())
        return []

    def free_mb(self, folder: str) -> float:
        """Return the space that is free where a folder is."""
        return shutil.disk_usage(folder).free / 1e6

    def start(
        self, name: str, folder: str, arguments: list[str], cores: list[int] | None
    ) -> list[int]:
        """Start a process in the background; return its pid and start time."""
        log, pid_file = Path(folder, f"{name}.log"), Path(folder, f"{name}.pid")
        options = [f"--log={log}", f"--pid-file={pid_file}", f"--parent={os.getpid()}"]
        options += [f"--cores={','.join(map(str, cores))}"] if cores else []
        command = [sys.executable, "-m", "experiment.spawn", *options, "--", *arguments]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=self._root, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._started[name] = process
        found = processes.identify(process.pid)
        return [process.pid, found.start if found else 0]

    def exits(self) -> dict[str, int | None]:
        """Return the exit code of each process started; None for those that run."""
        return {name: self._exit(process) for name, process in self._started.items()}

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process, if it runs."""
        if self._exit(self._started[name]) is None:
            self._started[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kill a process with its group."""
        _kill_group(self._started[name].pid)

    def _exit(self, process: subprocess.Popen[bytes]) -> int | None:
        ran = process.returncode is None
        code = process.poll()
        if ran and code is not None:
            _kill_group(process.pid)  # what it left behind must not disturb the next run
        return code

    def end_all(self, grace_s: float) -> None:
        """End every process: SIGTERM, and SIGKILL after a grace time."""
        running = [name for name, code in self.exits().items() if code is None]
        for name in running:
            self.signal(name, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while any(self._exit(self._started[name]) is None for name in running):
            if time.monotonic() > deadline:
                for name in running:
                    self.kill(name)
            time.sleep(0.02)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def end_leftovers(work: Path, grace_s: float = GRACE_S) -> list[str]:
    """End the living processes that dead runs left, and remove their folders; return their names.

    Only for who holds the lock.
    """
    left: dict[str, ProcessId] = {}
    for path in sorted((work / RUNS).glob("*/*.pid")):
        numbers = path.read_text().split()
        if len(numbers) == 2 and (found := ProcessId(*map(int, numbers))).alive:
            left[f"{path.stem} {found}"] = found
    processes.end(left.values(), grace_s)
    for process in left.values():
        _kill_group(process.pid)
    shutil.rmtree(work / RUNS, ignore_errors=True)
    return list(left)


def lease(manager: Manager, lock: FileLock, options: argparse.Namespace) -> None:
    """Take the host's lock, or see that another process of the same manager has it.

    Raises:
        ManagerGoneError: the manager went while it waited.
        RunError: another manager has it, and this one does not want to wait.
    """
    deadline = time.monotonic() + (0.0 if options.refuse else float("inf"))
    told_s = 0.0
    while not lock.acquire():
        holder, _, token = lock.holder.partition(" [")
        if options.token in token:
            return
        if time.monotonic() > deadline:
            raise RunError(f"it is in use by process {holder} ({lock.path})")
        if time.monotonic() - told_s > 1.0:
            told_s = time.monotonic()
            manager.tell(waiting=f"it is in use by process {holder}")
        for _ in manager.requests(POLL_S):
            pass  # only to be heard


def serve(options: argparse.Namespace) -> None:
    """Hold the host until the manager has gone.

    Raises:
        ManagerGoneError: it has, or went before.
        RunError: another manager holds the host.
    """
    manager, hand = Manager(options.silence_s), Hand(Path.cwd())
    with FileLock(lock_path(), f"of {options.owner} [{options.token}]") as lock:
        lease(manager, lock, options)
        left = end_leftovers(options.work)
        prune(options.work)
        manager.tell(hello={"left": left, "machine": provenance.this_machine()})
        try:
            while True:
                for request in manager.requests(POLL_S):
                    manager.tell(**hand.answer(request))
        finally:
            hand.end_all(GRACE_S)


def main(arguments: list[str]) -> int:
    """Serve one manager; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiment.remote", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the work directory")
    parser.add_argument("--owner", required=True, help="what the lock says of the manager")
    parser.add_argument("--token", required=True, help="the same for all hands of a manager")
    parser.add_argument("--refuse", action="store_true", help="do not wait for the lock")
    parser.add_argument("--silence-s", type=float, default=SILENCE_S, help="the lease's length")
    try:
        serve(parser.parse_args(arguments))
    except ManagerGoneError as gone:
        print(gone, file=sys.stderr)
        return 3
    except JellyfishError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
