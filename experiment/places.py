"""Where a run's processes live: a folder on this machine, or one on a host (`remote_place`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiment.hosts import LocalConnection, Process
from experiment.shaping import HostProcess, RelayShaper, ShapedClient, Shaper
from jellyfish.files.atomic import read_json, whole_file, write_json
from jellyfish.trace import Trace

HERE = "127.0.0.1"
FULL_MB = 0.5  # what fails with less to spare has most likely failed for that


class Place(Protocol):
    """A folder that processes of one run write into.

    Attributes:
        folder: as processes there know it.
        python: the interpreter there.
        cores: those that processes there may use.
    """

    folder: Path
    python: str
    cores: tuple[int, ...]

    def begin(self) -> None:
        """Make the folder."""

    def file(self, path: Path) -> str:
        """Return where a file of this machine is there, once it is."""

    def source(self, path: Path) -> str:
        """Return where a file of the checkout is there; a relative path is below the checkout."""

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file into the folder; return its path there."""

    def hide(self, name: str, content: bytes) -> str:
        """Write a file that only its user can read, until the place ends; return its path there.

        Args:
            name: ends with .pem.
            content: ASCII.
        """

    def read(self, name: str) -> Any | None:
        """Return the JSON value of a file in the folder; None where it is missing."""

    def start(
        self, name: str, arguments: Sequence[str], cores: Sequence[int] | None = None
    ) -> HostProcess:
        """Start a process in the checkout there: NAME.log and NAME.pid in the folder."""

    def check(self) -> None:
        """Raise RunError if the place cannot be reached any more, or its disk is full."""

    def end(self) -> None:
        """End every process there that has not ended, and remove what was hidden."""

    def fetch(self, into: Path) -> None:
        """Bring what was written there into a folder of this machine, and remove it there."""


class LocalPlace:
    """A folder of this machine, which is the run's own.

    Args:
        folder: made already.
        root: the checkout.
    """

    python = sys.executable

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self._root = folder.resolve(), root
        self.cores = tuple(sorted(os.sched_getaffinity(0)))
        self._connection = LocalConnection()
        self._started: list[Process] = []
        self._hidden: list[Path] = []

    def begin(self) -> None:
        """Do nothing: see `folder`."""

    def file(self, path: Path) -> str:
        """Return the absolute path."""
        return str(path.resolve())

    def source(self, path: Path) -> str:
        """Return the absolute path."""
        return str((self._root / path).resolve())

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file; see `Place.write`."""
        write_json(self.folder / name, value)
        return self.folder / name

    def hide(self, name: str, content: bytes) -> str:
        """Write a file for one pair of eyes; see `Place.hide`."""
        path = self.folder / name
        self._hidden.append(path)
        with whole_file(path, 0o600) as temporary:
            temporary.write_bytes(content)
        return str(path)

    def read(self, name: str) -> Any | None:
        """Read a JSON file; see `Place.read`."""
        path = self.folder / name
        return read_json(path) if path.exists() else None

    def start(
        self, name: str, arguments: Sequence[str], cores: Sequence[int] | None = None
    ) -> HostProcess:
        """Start a process; see `Place.start`."""
        process = Process(
            self._connection,
            arguments,
            name=name,
            folder=self.folder,
            root=self._root,
            cores=cores,
        )
        self._started.append(process)
        return process.start()

    def check(self) -> None:
        """Do nothing: this machine is here."""

    def end(self) -> None:
        """End every process, the last one first, and remove what was hidden."""
        while self._started:
            self._started.pop().end()
        while self._hidden:
            self._hidden.pop().unlink(missing_ok=True)

    def fetch(self, into: Path) -> None:
        """Do nothing: it is there."""


@dataclass(frozen=True)
class Placement:
    """Where the processes of one run live: clients take turns at the places for clients.

    Args:
        server: of the server.
        clients: of clients: client i lives at number i modulo their number.
        shapers: of the uplinks from each place of clients.
        listen: where the server listens.
        address: where clients reach it.
        local: whether all of it is on this machine, without SSH.
    """

    server: Place
    clients: tuple[Place, ...]
    shapers: tuple[Shaper, ...]
    listen: str = HERE
    address: str = HERE
    local: bool = False

    @property
    def every(self) -> tuple[Place, ...]:
        """Each place once, clients' before the server's."""
        return (*(place for place in self.clients if place is not self.server), self.server)

    def of_client(self, client: int) -> Place:
        """Return where a client lives."""
        return self.clients[client % len(self.clients)]

    def shaper_of(self, client: int) -> Shaper:
        """Return who shapes a client's uplink."""
        return self.shapers[client % len(self.clients)]

    def shaped_by(self, shaper: Shaper, uplinks: Sequence[Trace | None]) -> list[ShapedClient]:
        """Return the clients of which `shaper` has to know, given the uplink of every client."""
        return [
            ShapedClient(client=i, source_ports=ports, trace=trace)
            for i, trace in enumerate(uplinks)
            if self.shaper_of(i) is shaper and (ports := shaper.source_ports(i)) is not None
        ]


def here(folder: Path, root: Path) -> Placement:
    """Return the placement of a run that is all on this machine, in `folder`."""
    place = LocalPlace(folder, root)
    return Placement(server=place, clients=(place,), shapers=(RelayShaper(),), local=True)
