"""The job of `client.shaping.tc`: a JSON file that says what is to be shaped, and its checks."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from client.shaping.tc_commands import Commands, Schedule, Uplink
from client.shaping.tc_helper import Helper, installing
from client.shaping.tc_host import Interface, address_of, check_ports, interface_to, tool
from client.shaping.tc_root import Lines, RefusedError
from jellyfish.errors import ConfigError
from jellyfish.trace import Trace

KEYS = """\
  server       host name or address of the server
  interface    by which clients reach it; null for the one that leads there (null)
  clients      a list of {client: its number, first_port: of its block of 16 source ports,
               trace: {mbps, step_s}}
  out_dir      its files: tc.ready.json once all is shaped, tc.json in the end; it waits for
               client-N.started.json ({started_s}, of CLOCK_MONOTONIC) for each client
  max_s        it ends by itself after so long
  leaf         "tbf": a token bucket below each htb class; "htb": the class alone ("tbf")
  burst_bytes  a fixed burst; null for a frame and a quarter of a millisecond (null)
  latency_s    how long the fastest rate takes to empty a full queue (10)
"""
_DEFAULTS: dict[str, Any] = {
    "interface": None,
    "leaf": "tbf",
    "burst_bytes": None,
    "latency_s": 10.0,
}
_NEEDED = ("server", "clients", "out_dir", "max_s")


@dataclass(kw_only=True)
class Shaped:
    """One client's uplink and how far its trace is."""

    client: int
    uplink: Uplink
    started: Path
    schedule: Schedule = field(init=False)
    started_s: float | None = None
    mbps: float = field(init=False)
    changes: int = 0
    late_s: float = 0.0

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.uplink.trace)
        self.mbps = self.uplink.trace.mbps[0]

    @property
    def due_s(self) -> float:
        """When its next change is due, on the monotonic clock."""
        return inf if self.started_s is None else self.started_s + self.schedule.due_s

    def notice_start(self) -> None:
        """Let its trace begin when its client has said so."""
        if self.started_s is None and self.started.exists():
            self.started_s = float(json.loads(self.started.read_text())["started_s"])


class Job:
    """What a JSON file says is to be shaped (see KEYS).

    Args:
        path: the file.

    Raises:
        ConfigError: a key is unknown, missing or wrong, there is no such interface, or the server
            is reached by another one.
    """

    def __init__(self, path: Path) -> None:
        value = _read(path)
        self.out_dir = Path(value["out_dir"])
        self.max_s = float(value["max_s"])
        self.address = address_of(str(value["server"]))
        self.interface = Interface(value["interface"] or interface_to(self.address))
        self.interface.check_way(self.address)
        self.commands = Commands(
            self.interface.name,
            self.interface.mtu,
            family=6 if ":" in self.address else 4,
            leaf=value["leaf"],
            burst_bytes=value["burst_bytes"],
            latency_s=float(value["latency_s"]),
            queue_frames=self.interface.queue_frames,
        )
        try:
            self.shaped = [self._client(i, one) for i, one in enumerate(value["clients"], start=1)]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: clients: {error!r}") from error

    def _client(self, number: int, value: dict[str, Any]) -> Shaped:
        client, trace = int(value["client"]), value["trace"]
        rates = Trace(f"client {client}", tuple(map(float, trace["mbps"])), float(trace["step_s"]))
        uplink = Uplink(number=number, first_port=int(value["first_port"]), trace=rates)
        started = self.out_dir / f"client-{client}.started.json"
        return Shaped(client=client, uplink=uplink, started=started)

    def check(self) -> None:
        """Check everything that can fail, and remove what a dead run left; change nothing else.

        Raises:
            JellyfishError: root is out of reach, ports are taken, another run shapes here, or
                the interface has a qdisc that could not be put back.
        """
        check_ports([one.uplink.first_port for one in self.shaped])
        with Helper(self.interface.name):
            pass  # it has the right, and has put back what a dead run left
        before = self.interface.root()
        if not before.restorable:
            raise ConfigError(
                f"{socket.gethostname()}: {self.interface.name} has a qdisc that could not be put "
                f"back afterwards: `{before.kind} {before.handle} {before.options}`; remove it, "
                "use another interface, or shape by relay"
            )

    def plan(self) -> list[str]:
        """Return the commands of the whole job, for people to read.

        Raises:
            ConfigError: one would be refused.
        """
        try:
            return self._plan(tool("tc"), Lines(self.interface.name))
        except RefusedError as error:
            raise ConfigError(f"{socket.gethostname()}: {error}") from error

    def _plan(self, tc: str, written: Lines) -> list[str]:
        name, lines = self.interface.name, []
        if os.geteuid() != 0:
            lines = [f"# once, by an administrator: {step}" for step in installing(name)]
        for request in self.commands.set_up([one.uplink for one in self.shaped]):
            lines += [f"{tc} {line}" for line in written.of(request.encode())]
        for one in self.shaped:
            due_s, rate = one.schedule.due_s, None
            if due_s < inf:
                rate = one.schedule.take(due_s)
            if rate is not None:
                change = self.commands.change(one.uplink, rate).encode()
                lines.append(f"# {due_s:g} s after client {one.client} has begun, and so on:")
                lines += [f"{tc} {line}" for line in written.of(change)]
        lines.append("# in the end:")
        return lines + [f"{tc} {line}" for line in self.interface.root().commands(name)]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no job: {error}") from error
    known = (*_NEEDED, *_DEFAULTS)
    for key in value:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; there are: {', '.join(known)}")
    for key in _NEEDED:
        if key not in value:
            raise ConfigError(f"{path}: {key} is missing")
    return {**_DEFAULTS, **value}
