"""A folder of one run on a host, and the processes that write into it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment.places import FULL_MB
from experiment.remote import RUNS
from experiment.remote_host import RemoteHost
from experiment.shaping import HostProcess
from jellyfish.errors import RunError

_UNFETCHED = (".pid", ".part", ".pem")
_SHARED = ("client-", "server", "plans.parquet")  # no two hosts have one of the same name


class RemotePlace:
    """A folder on a host, WORK/runs/KEY-HOST.

    Args:
        host: the host, held.
        key: the run's.
        server: the server's address, as clients know it.
    """

    def __init__(self, host: RemoteHost, key: str, server: str) -> None:
        self.host, self.server = host, server
        self.name, self.python, self.cores = host.name, host.python, host.facts.cores
        self.interface = host.spec.interface
        self._hidden: list[str] = []
        self.folder = Path(host.facts.work, RUNS, f"{key}-{host.name}")

    def begin(self) -> None:
        """Make the folder; see `Place.begin`."""
        self.host.ask("make", folder=str(self.folder))

    def file(self, path: Path) -> str:
        """Put a file there unless it is there; see `Place.file`."""
        return self.host.put(path)

    def source(self, path: Path) -> str:
        """Return the path in the code there; see `Place.source`."""
        return f"{self.host.code}/{path}"

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file; see `Place.write`."""
        path = self.folder / name
        self.host.ask("write", path=str(path), text=json.dumps(value, allow_nan=False))
        return path

    def hide(self, name: str, content: bytes) -> str:
        """Write a file for one pair of eyes; see `Place.hide`."""
        path = str(self.folder / name)
        self._hidden.append(path)
        self.host.ask("write", path=path, text=content.decode("ascii"), mode=0o600)
        return path

    def read(self, name: str) -> Any | None:
        """Read a JSON file; see `Place.read`."""
        text = self.host.ask("read", path=str(self.folder / name))
        try:
            return None if text is None else json.loads(text)
        except json.JSONDecodeError as error:
            raise RunError(f"{self.name}: {self.folder / name} is no JSON: {error}") from error

    def start(
        self, name: str, arguments: Sequence[str], cores: Sequence[int] | None = None
    ) -> HostProcess:
        """Start a process; see `Place.start`."""
        return self.host.start(name, self.folder, arguments, cores)

    def call(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command in the checkout there; return its exit code and what it wrote.

        Raises:
            RunError: it does not end in time; it is ended.
        """
        process = self.start("call", arguments)
        deadline = time.monotonic() + timeout_s
        while (code := process.exit_code) is None:
            if time.monotonic() > deadline:
                process.end()
                raise RunError(f"{self.name}: no end within {timeout_s:g} s: {' '.join(arguments)}")
            self.host.look()
            time.sleep(0.05)
        said = process.log_tail(1000)
        self.host.ask("discard", path=str(self.folder / "call.log"))
        return code, said

    def check(self) -> None:
        """Ask the host whether it is there and has space; see `Place.check`."""
        self.host.look()
        if self.host.ask("free_mb", folder=str(self.folder)) < FULL_MB:
            raise RunError(f"{self.name}: the disk of {self.folder} is full")

    def end(self) -> None:
        """End every process there and remove what was hidden.

        Where the host is lost, processes end by themselves, and files stay until the next run.
        """
        if self.host.lost is None:
            self.host.ask("end_all", grace_s=6.0)
            while self._hidden:
                self.host.ask("discard", path=self._hidden.pop())

    def fetch(self, into: Path) -> None:
        """Bring the files here; see `Place.fetch`. A lost host keeps them until the next run.

        Raises:
            RunError: the host is lost meanwhile.
        """
        if self.host.lost is not None:
            return
        for name in self.host.ask("files", folder=str(self.folder)):
            if name != "go" and not name.endswith(_UNFETCHED):
                target = into if name.startswith(_SHARED) else into / "hosts" / self.name
                target.mkdir(parents=True, exist_ok=True)
                self.host.ssh.get(str(self.folder / name), str(target / name))
        self.host.ask("remove", folder=str(self.folder))
