"""A host as its manager sees it: files and processes there, for as long as the lease holds.

`experiment.remote` is the other end. A thread asks it once a second for the processes' exit codes:
that keeps the lease, and tells soon when the host or the way to it is lost.
"""

from __future__ import annotations

import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramiko import Channel
from paramiko.ssh_exception import SSHException

from experiment.deploy import name_by_content
from experiment.host_file import HostSpec
from experiment.preflight import Facts
from experiment.remote import SILENCE_S
from experiment.remote_line import Line
from experiment.ssh import Ssh
from jellyfish.errors import RunError

BEAT_S = 1.0
START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Which manager it is: what a lock says of it, and a token that no other manager has."""

    name: str
    token: str
    waits: bool


class RemoteHost:
    """A host that is held for one manager: a context manager.

    Args:
        ssh: an open connection; closed in the end.
        spec, facts: the host.
        code: the code's directory there.
        python: the interpreter there.
        owner: whom it is held for.
    """

    def __init__(
        self, ssh: Ssh, spec: HostSpec, facts: Facts, code: str, python: str, owner: Owner
    ) -> None:
        self.ssh, self.spec, self.facts = ssh, spec, facts
        self.name, self.code, self.python = spec.name, code, python
        self.machine: dict[str, Any] = {}
        self.lost: str | None = None
        self._owner = owner
        self._line: Line | None = None
        self._channel: Channel | None = None
        self._exits: dict[str, int | None] = {}
        self._used: set[str] = set()  # names below WORK/files
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep, name=f"lease {self.name}", daemon=True)

    def __enter__(self) -> RemoteHost:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> RemoteHost:
        """Take the host, waiting for another manager if that is wanted.

        Raises:
            RunError: another manager has it, or the other end does not start.
        """
        options = ["--work", self.facts.work, "--owner", self._owner.name]
        options += ["--token", self._owner.token, *([] if self._owner.waits else ["--refuse"])]
        command = shlex.join([self.python, "-m", "experiment.remote", *options])
        try:
            self._channel = self.ssh.fabric.transport.open_session(timeout=START_S)
            self._channel.exec_command(f"cd {shlex.quote(self.code)} && exec {command}")
        except (OSError, SSHException, EOFError) as error:
            raise RunError(f"{self.name}: cannot start experiment.remote: {error}") from error
        self._line = Line(self.name, self._channel)
        hello = self._hello(self._line)
        self.machine = hello["machine"]
        for process in hello["left"]:
            print(f"{self.name}: a dead run left process {process}; it was ended", file=sys.stderr)
        self._beat.start()
        return self

    def _hello(self, line: Line) -> dict[str, Any]:
        told = ""
        while "hello" not in (said := line.receive(START_S)):
            if said["waiting"] != told:
                told = said["waiting"]
                print(f"waiting for {self.name}: {told}", file=sys.stderr)
            line.send({})
        hello: dict[str, Any] = said["hello"]
        return hello

    def close(self) -> None:
        """End every process there, let go of the host, and close the connection."""
        self._ended.set()
        if self._beat.is_alive():
            self._beat.join(SILENCE_S)
        if self._channel is not None:
            with suppress(RunError):
                self.ask("end_all", grace_s=5.0)
            self._channel.close()
        self.ssh.close()

    def ask(self, do: str, **what: Any) -> Any:
        """Return the answer to one request (see `experiment.remote.Hand`).

        Raises:
            RunError: it fails there, or the host is lost; the text names the host.
        """
        with self._lock:
            self.check()
            assert self._line is not None, "opened before"
            try:
                self._line.send({"do": do, **what})
                answer = self._line.receive()
            except RunError as error:
                self.lost = str(error)
                raise
        if "error" in answer:
            raise RunError(f"{self.name}: {answer['error']}")
        return answer["ok"]

    def check(self) -> None:
        """Raise RunError if the host is lost."""
        if self.lost is not None:
            raise RunError(self.lost)

    def _keep(self) -> None:
        """Be heard there, and hear from there."""
        while not self._ended.wait(BEAT_S):
            try:
                self.look()
            except RunError:
                if self.lost:
                    return  # whoever asks for anything is told

    def look(self) -> None:
        """Ask for the exit codes now.

        Raises:
            RunError: the host is lost.
        """
        self._exits = self.ask("exits")

    def exit_code(self, name: str) -> int | None:
        """Return a process's exit code, at most BEAT_S old; None while it runs."""
        self.check()
        return self._exits.get(name)

    def start(
        self, name: str, folder: Path, arguments: Sequence[str], cores: Sequence[int] | None
    ) -> RemoteProcess:
        """Start a process there: log NAME.log and pid file NAME.pid in `folder`.

        Raises:
            RunError: it cannot be started there.
        """
        listed = list(cores) if cores else None
        self._exits.pop(name, None)
        self.ask("start", name=name, folder=str(folder), arguments=list(arguments), cores=listed)
        return RemoteProcess(self, name, folder)

    def put(self, path: Path) -> str:
        """Put a file below WORK/files, unless it is there; return its path there.

        Raises:
            RunError: it cannot be written there.
        """
        name = name_by_content(path)
        there = f"{self.facts.work}/files/{name}"
        if name not in self._used and not self.ask("use", path=there):
            part = f"{self.facts.work}/files/.{self._owner.token}-{name}"
            self.ssh.put(str(path.resolve()), part)
            self.ask("rename", path=part, to=there)
        self._used.add(name)
        return there


class RemoteProcess:
    """A background process on a host (see `experiment.hosts.Process`).

    Args:
        host: where it runs.
        name: what it is called there.
        folder: where its log is.
    """

    def __init__(self, host: RemoteHost, name: str, folder: Path) -> None:
        self._host, self._key, self._folder = host, name, folder
        self.name = f"{name} on {host.name}"

    @property
    def running(self) -> bool:
        """Whether it has not ended.

        Raises:
            RunError: the host is lost.
        """
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs.

        Raises:
            RunError: the host is lost.
        """
        return self._host.exit_code(self._key)

    def end(self, grace_s: float = 6.0) -> int | None:
        """End it (SIGTERM; SIGKILL with its group after `grace_s`); return its exit code.

        Raises:
            RunError: the host is lost: there it is ended all the same.
        """
        self._host.look()
        if self.running:
            self._host.ask("signal", name=self._key, number=int(signal.SIGTERM))
            if not self._gone_within(grace_s):
                self._host.ask("kill", name=self._key)
                self._gone_within(5.0)
        return self.exit_code

    def _gone_within(self, patience_s: float) -> bool:
        return within(patience_s, lambda: not self._looked())

    def _looked(self) -> bool:
        self._host.look()
        return self.running

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that it wrote.

        Raises:
            RunError: the host is lost.
        """
        path = str(self._folder / f"{self._key}.log")
        return str(self._host.ask("tail", path=path, lines=lines)) or "(its log is empty)"


def within(patience_s: float, condition: Callable[[], bool], pause_s: float = 0.05) -> bool:
    """Return whether `condition` comes true in that time; it is asked once at least."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
    return True
