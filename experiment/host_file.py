"""The hosts file: which machines a measured grid runs on, and how they are reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from experiment.checked import check
from jellyfish.errors import ConfigError
from jellyfish.files.keys import read_keys

SCHEMA = Path(__file__).resolve().parents[1] / "workflow" / "schemas" / "hosts.schema.yaml"


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """One machine, as the hosts file says (see config/README.md).

    Args:
        name: what errors, logs and rows call it.
        address: host name, address or alias in ssh_config.
        work: its work directory.
        user, port: None for what ssh_config says, or this user and 22.
        key: file of the private key; None for the agent's keys and the usual files.
        python, conda: the environment that is there already; both None to have one made.
        interface: of the network between clients and server.
        shaper: who shapes the uplinks of clients there: relay or tc.
        tc: how tc does, where not as usual (see `experiment.tc_shaping.TcSettings`).
        client_address, listen: where clients reach a server, and where it listens.
    """

    name: str
    address: str
    work: str
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    python: str | None = None
    conda: str | None = None
    interface: str | None = None
    shaper: str = "relay"
    tc: Mapping[str, Any] = field(default_factory=dict)
    client_address: str | None = None
    listen: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return what a result depends on: the machine, not the way to it."""
        names = ("address", "interface", "shaper", "client_address")
        found = {name: getattr(self, name) for name in names}
        return {**found, "tc": dict(self.tc)} if self.tc else found


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """The machines: one server, and clients that take turns in getting a client.

    Args:
        path: the hosts file.
        known_hosts: file of the hosts' keys; None for what ssh_config says, or the usual one.
        ssh_config: None for the usual one.
    """

    path: Path
    server: HostSpec
    clients: tuple[HostSpec, ...]
    known_hosts: Path | None = None
    ssh_config: Path | None = None

    @property
    def every(self) -> tuple[HostSpec, ...]:
        """All of them, the server first."""
        return (self.server, *self.clients)

    def settings(self) -> dict[str, Any]:
        """Return what a result depends on, JSON-like."""
        return {
            "server": self.server.settings(),
            "clients": [client.settings() for client in self.clients],
        }


def read_hosts(path: Path) -> Hosts:
    """Return what the hosts file at `path` says; files that it names are relative to its folder.

    Raises:
        ConfigError: it cannot be read, a key is unknown, missing or wrong, two hosts have one
            name, or a key file is missing; the text names file and key.
    """
    if not path.exists():
        raise ConfigError(
            f"hosts file {path} cannot be read: there is none; write one like "
            "config/hosts.example.yaml, or say `make testbed` where it is the testbed's"
        )
    value = read_keys(path, "a hosts file")
    check(value, yaml.safe_load(SCHEMA.read_text()), str(path))
    base = path.resolve().parent
    server = _host(path, base, "server", {"name": "server", **value["server"]})
    clients = tuple(
        _host(path, base, f"clients[{i}]", client) for i, client in enumerate(value["clients"])
    )
    names = Counter(host.name for host in (server, *clients))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(
            f"{path}: two hosts are named {twice[0]!r}; give each a `name` of its own"
        )
    return Hosts(
        path=path,
        server=server,
        clients=clients,
        known_hosts=_file(path, base, "known_hosts", value.get("known_hosts")),
        ssh_config=_file(path, base, "ssh_config", value.get("ssh_config")),
    )


def _host(path: Path, base: Path, place: str, value: dict[str, Any]) -> HostSpec:
    if {"python", "conda"} <= set(value):
        raise ConfigError(f"{path}: {place}: python and conda exclude each other; leave one out")
    return HostSpec(**{**value, "key": _file(path, base, f"{place}.key", value.get("key"))})


def _file(path: Path, base: Path, key: str, value: str | None) -> Path | None:
    if value is None:
        return None
    found = base / Path(value).expanduser()
    if not found.is_file():
        raise ConfigError(f"{path}: {key}: no file {found}")
    return found
