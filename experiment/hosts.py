"""Hosts and the processes on them, through Fabric's connection interface.

`LocalConnection` is this machine without SSH; it has the part of `fabric.Connection` that an
experiment uses (`run`, `put`, `get`, `close`, a context manager), so that either one serves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import CommandTimedOut
from invoke.runners import Local

from jellyfish.errors import RunError

START_TIMEOUT_S = 20.0


class Connection(Protocol):
    """What an experiment asks of a host."""

    host: str

    def run(self, command: str, **options: Any) -> Any:
        """Run a shell command there (see `invoke.Context.run`)."""

    def put(self, local: str, remote: str | None = None) -> Any:
        """Copy a file to the host."""

    def get(self, remote: str, local: str | None = None) -> Any:
        """Copy a file from the host."""

    def close(self) -> None:
        """End the connection."""


class _Runner(Local):  # type: ignore[misc]
    """Invoke's runner, which leaves its pipes for the garbage collector to close."""

    def stop(self) -> None:
        super().stop()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class LocalConnection(Context):  # type: ignore[misc]
    """This machine, behind the interface of `fabric.Connection`."""

    def __init__(self) -> None:
        super().__init__(Config(overrides={"runners": {"local": _Runner}}))
        self._set(host="localhost")

    def __enter__(self) -> LocalConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, local: str, remote: str | None = None) -> Path:
        """Copy a file; `remote` is a file or an existing directory, the working one by default."""
        return self._copy(local, remote)

    def get(self, remote: str, local: str | None = None) -> Path:
        """Copy a file; `local` is a file or an existing directory, the working one by default."""
        return self._copy(remote, local)

    def close(self) -> None:
        """Do nothing: there is no session to end."""

    @staticmethod
    def _copy(source: str, target: str | None) -> Path:
        path = Path(target or ".")
        path = path / Path(source).name if path.is_dir() else path
        if path.resolve() == Path(source).resolve():
            return path
        return Path(shutil.copy2(source, path))


class Process:
    """A background process on a host: created, started, waited for or ended, as a context manager.

    Args:
        connection: the host.
        arguments: the command, without a shell.
        name: what messages call it; also names its files.
        folder: where its log (NAME.log) and pid file (NAME.pid) go, on the host.
        root: its working directory.
        cores: the cores that it may use; None for all.
    """

    def __init__(
        self,
        connection: Connection,
        arguments: Sequence[str],
        *,
        name: str,
        folder: Path,
        root: Path,
        cores: Sequence[int] | None = None,
    ) -> None:
        self.connection = connection
        self.arguments = list(arguments)
        self.name = name
        self.log = folder / f"{name}.log"
        self.pid_file = folder / f"{name}.pid"
        self.root = root
        self.cores = cores
        self.exit_code: int | None = None
        self._promise: Any = None
        self._pid: tuple[int, int] | None = None

    def __enter__(self) -> Process:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> Process:
        """Start it; return once its pid is known.

        One that a killed run left under the same pid file is killed first.

        Raises:
            RunError: the host could not start it.
        """
        if (left := self._read_pid()) is not None:
            self._signal("KILL", left)
        self._shell(f"rm -f {shlex.quote(str(self.pid_file))}")
        self._promise = self.connection.run(
            f"cd {shlex.quote(str(self.root))} && exec {shlex.join(self._command())}",
            asynchronous=True,
            hide=True,
            warn=True,
            in_stream=False,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while (pid := self._read_pid()) is None:
            if self._finished or time.monotonic() > deadline:
                raise RunError(
                    f"{self.name} did not start on {self.connection.host}: {self._why()}"
                )
            time.sleep(0.01)
        self._pid = pid
        return self

    def _command(self) -> list[str]:
        local = isinstance(self.connection, LocalConnection)
        options = [f"--log={self.log}", f"--pid-file={self.pid_file}"]
        options += [f"--parent={os.getpid()}"] if local else []
        options += [f"--cores={','.join(map(str, self.cores))}"] if self.cores else []
        return [sys.executable, "-m", "experiment.spawn", *options, "--", *self.arguments]

    def _read_pid(self) -> tuple[int, int] | None:
        shown = self.connection.run(
            f"cat {shlex.quote(str(self.pid_file))}", hide=True, warn=True, in_stream=False
        )
        parts = shown.stdout.split()
        return (int(parts[0]), int(parts[1])) if len(parts) == 2 else None

    @property
    def _finished(self) -> bool:
        return self._promise is None or bool(self._promise.runner.process_is_finished)

    def _why(self) -> str:
        result = self._promise.join()
        self._promise = None
        return (result.stderr.strip() or f"exit code {result.exited}").splitlines()[-1]

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        if self._promise is not None and self._finished:
            self._collect()
        return self._promise is not None

    def _collect(self) -> None:
        self._end_group()
        self.exit_code = int(self._promise.join().exited)
        self._promise = None

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit code once it has ended, or None when `timeout_s` has passed."""
        deadline = time.monotonic() + timeout_s
        while self.running:
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
        return self.exit_code

    def end(self, grace_s: float = 6.0) -> int | None:
        """End it by pid (SIGTERM; SIGKILL after `grace_s`); return its exit code."""
        if self.running:
            self._signal("TERM", self._pid)
            if self.wait(grace_s) is None:
                self._end_group()
                self.wait(5.0)
        return self.exit_code

    def _signal(self, signal_name: str, process: tuple[int, int] | None) -> None:
        if process is not None:
            pid, start = process
            # A pid may belong to another process by now: the start time tells.
            now = f'$(sed "s/.*) //" /proc/{pid}/stat 2>/dev/null | cut -d" " -f20)'
            self._shell(f'[ "{now}" = {start} ] && kill -{signal_name} {pid}')

    def _end_group(self) -> None:
        """Kill its process group: what a process leaves behind must not disturb the next run."""
        if self._pid is not None:
            self._shell(f"kill -KILL -- -{self._pid[0]}")

    def _shell(self, command: str) -> None:
        try:
            self.connection.run(command, hide=True, warn=True, in_stream=False, timeout=10)
        except CommandTimedOut as error:
            raise RunError(f"{self.connection.host} does not answer: {error}") from error

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that it wrote."""
        shown = self.connection.run(
            f"tail -n {lines} {shlex.quote(str(self.log))}", hide=True, warn=True, in_stream=False
        )
        return str(shown.stdout).strip() or "(its log is empty)"
