"""Shaping of the clients on one host by tc: the manager's side of `client.shaping.tc`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.shaping.tc_root import PORTS_EACH
from experiment.shaping import HostProcess, ShapedClient, ShapedHost
from jellyfish.errors import ConfigError, RunError

FIRST_PORT = 20480  # below the ports that Linux gives to any connection (32768 to 60999)
MAX_S = 6 * 3600.0
_MODULE = "client.shaping.tc"
_READY_S = 20.0
_CALL_S = 30.0
_GRACE_S = 6.0


@dataclass(frozen=True, kw_only=True)
class TcSettings:
    """How tc shapes; see `client.shaping.tc_commands.Commands`.

    Args:
        leaf: "tbf", a token bucket below each htb class, or "htb", the class alone.
        burst_bytes: a fixed burst; None for a frame and a quarter of a millisecond.
        latency_s: how long the fastest rate takes to empty a full queue.
        first_port: client 0's first source port; each has a block of 16.
    """

    leaf: str = "tbf"
    burst_bytes: int | None = None
    latency_s: float = 10.0
    first_port: int = FIRST_PORT


class TcShaper:
    """Shapes the uplinks of the clients on one host by tc (see `experiment.shaping.Shaper`).

    Args:
        host: where the clients are.
        settings: how to shape.
        max_s: tc ends by itself after so long, whatever happens.
    """

    def __init__(
        self, host: ShapedHost, settings: TcSettings | None = None, max_s: float = MAX_S
    ) -> None:
        self._host, self._max_s = host, max_s
        self._settings = settings or TcSettings()
        self._process: HostProcess | None = None

    @property
    def host(self) -> str:
        """The name of the host."""
        return self._host.name

    def source_ports(self, client: int) -> tuple[int, int]:
        """Return the ports that a client leaves from."""
        first = self._settings.first_port + client * PORTS_EACH
        return first, first + PORTS_EACH - 1

    def preflight(self) -> None:
        """Check everything that can fail, and remove what a dead run left.

        Raises:
            ConfigError: the host cannot shape: no right to run tc as root, no such interface, a
                qdisc that could not be put back, another run at it.
        """
        code, said = self._call("--check", [])
        if code != 0:
            raise ConfigError(f"{self._host.name}: {said}")

    def dry_run(self, clients: Sequence[ShapedClient]) -> str:
        """Return the commands that would shape `clients`, one a line; nothing is changed.

        Raises:
            ConfigError: they cannot be told, since the host lacks something.
        """
        code, said = self._call("--dry-run", clients)
        if code != 0:
            raise ConfigError(f"{self._host.name}: {said}")
        return said

    def start(self, clients: Sequence[ShapedClient]) -> None:
        """Begin to shape; return once all is set up.

        Raises:
            RunError: it failed.
        """
        if not any(client.trace for client in clients):
            return
        job = self._host.write("tc.job.json", self._job(clients))
        command = [self._host.python, "-m", _MODULE, "--job", str(job)]
        self._process = self._host.start("tc", command)
        deadline = time.monotonic() + _READY_S
        while self._host.read("tc.ready.json") is None:
            if not self._process.running or time.monotonic() > deadline:
                said = self._process.log_tail()
                self._end()
                raise RunError(f"{self._host.name}: tc does not shape: {said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the shaping and put the interface back as it was; nothing started is fine.

        Raises:
            RunError: the shaping failed in between, or nothing went by way of it, so that what
                was measured is void; or the interface could not be put back.
        """
        process = self._process
        if process is None:
            return
        if self._end() != 0:
            raise RunError(f"{self._host.name}: tc has not shaped to the end: {process.log_tail()}")
        self._check(self._host.read("tc.json"))

    def _end(self) -> int | None:
        """End the process, and do what it could not do; return its exit code."""
        process, self._process = self._process, None
        code = process.end(_GRACE_S) if process is not None else 0
        if code != 0:
            failed, said = self._call("--clean", [])
            if failed:
                raise RunError(f"{self._host.name}: the interface is not as it was: {said}")
        return code

    def _check(self, report: Any) -> None:
        if report is None:
            raise RunError(f"{self._host.name}: tc left no tc.json; were its files removed?")
        for client in report["clients"]:
            if client["started_s"] is not None and not client.get("frames"):
                raise RunError(
                    f"{self._host.name}: nothing that client {client['client']} sent went by way "
                    f"of tc on {report['interface']}"
                )

    def _call(self, option: str, clients: Sequence[ShapedClient]) -> tuple[int, str]:
        job = self._host.write("tc.check.json", self._job(clients))
        command = [self._host.python, "-m", _MODULE, "--job", str(job), option]
        code, said = self._host.call(command, _CALL_S)
        return code, said.strip().removeprefix("tc: ")

    def _job(self, clients: Sequence[ShapedClient]) -> dict[str, Any]:
        return {
            "server": self._host.server,
            "interface": self._host.interface,
            "clients": [
                {
                    "client": one.client,
                    "first_port": one.source_ports[0],
                    "trace": {"mbps": list(one.trace.mbps), "step_s": one.trace.step_s},
                }
                for one in clients
                if one.trace is not None
            ],
            "out_dir": str(Path(self._host.folder)),
            "max_s": self._max_s,
            "leaf": self._settings.leaf,
            "burst_bytes": self._settings.burst_bytes,
            "latency_s": self._settings.latency_s,
        }
