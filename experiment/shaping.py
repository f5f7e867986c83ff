"""Who shapes the uplinks of one client host: relays, or tc.

A relay is a child of each client and needs nobody here. tc (`client.shaping.tc`) is one process a
host, started through that host like any other process of a run: it dies with the manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jellyfish.trace import Trace


@dataclass(frozen=True, kw_only=True)
class ShapedClient:
    """One client whose uplink is shaped.

    Args:
        client: its number; its files on the host are client-N.*.
        source_ports: first and last of the ports that its connections leave from.
        trace: its uplink, begun at the client's own step; None for no limit.
    """

    client: int
    source_ports: tuple[int, int]
    trace: Trace | None


class HostProcess(Protocol):
    """A process on a host, which ends at the latest with the run.

    Attributes:
        name: what messages call it.
    """

    name: str

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, once it has ended."""

    def end(self, grace_s: float = 6.0) -> int | None:
        """End it by pid (SIGTERM; SIGKILL after `grace_s`); return its exit code."""

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that it wrote."""


class ShapedHost(Protocol):
    """What a shaper is given of a client host.

    Attributes:
        name: as in the hosts file; every error begins with it.
        interface: what clients reach the server by; None for the one that leads there.
        server: the server's address, as clients know it.
        folder: the run's folder on the host, absolute.
        python: the interpreter there.
    """

    name: str
    interface: str | None
    server: str
    folder: Path
    python: str

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file into `folder`; return its path on the host."""

    def read(self, name: str) -> Any | None:
        """Return the JSON value of a file in `folder`, None where it is missing."""

    def start(self, name: str, arguments: Sequence[str]) -> HostProcess:
        """Start a process in the checkout on the host: log NAME.log, pid file NAME.pid."""

    def call(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command in the checkout on the host; return exit code and what it wrote."""


class Shaper(Protocol):
    """Shapes the uplinks of the clients on one host."""

    def source_ports(self, client: int) -> tuple[int, int] | None:
        """Return what a client's job says of its ports; None where a relay shapes."""

    def preflight(self) -> None:
        """Check everything that can fail, and remove what a dead run left, by its own marks.

        Raises:
            JellyfishError: it cannot shape there; the text names the host and says what to do.
        """

    def start(self, clients: Sequence[ShapedClient]) -> None:
        """Begin to shape; return once all is set up. Each trace begins with its client.

        Raises:
            JellyfishError: it failed; the text names the host.
        """

    def stop(self) -> None:
        """End the shaping and put the interface back as it was; nothing started is fine."""


class RelayShaper:
    """Nothing to do: each client has a relay of its own."""

    def source_ports(self, client: int) -> tuple[int, int] | None:
        """Return None: relays are no matter of ports."""
        return None

    def preflight(self) -> None:
        """Check nothing: a relay needs no right that its client lacks."""

    def start(self, clients: Sequence[ShapedClient]) -> None:
        """Start nothing: clients start their relays."""

    def stop(self) -> None:
        """End nothing: relays end with their clients."""
