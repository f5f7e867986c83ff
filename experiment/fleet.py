"""All hosts of an experiment: reached, looked at, supplied, and held for one manager."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from experiment import deploy, provenance
from experiment.grid import Config, Run, cells, pick
from experiment.host_file import Hosts, HostSpec, read_hosts
from experiment.jobs import uplinks
from experiment.places import Placement
from experiment.preflight import Facts, look
from experiment.remote_host import Owner, RemoteHost
from experiment.remote_place import RemotePlace
from experiment.shaping import RelayShaper, Shaper
from experiment.ssh import Ssh
from experiment.tc_shaping import TcSettings, TcShaper
from jellyfish.errors import JellyfishError, RunError
from jellyfish.policy import policy

T = TypeVar("T")
_DEVICE_MODULES = {"torch": ("torch",), "onnxruntime": ("onnxruntime",), "emulated": ()}


@dataclass(frozen=True)
class PerHost:
    """What became of one task on each host.

    Args:
        done: results by host name, where it worked.
        failed: errors by host name, where it did not.
    """

    done: Mapping[str, Any]
    failed: Mapping[str, JellyfishError]

    def results(self) -> Mapping[str, Any]:
        """Return the results.

        Raises:
            RunError: it failed on a host; the text has a line for each.
        """
        if self.failed:
            raise RunError("\n  ".join(str(error) for error in self.failed.values()))
        return self.done


def on_each(hosts: Mapping[str, T], do: Callable[[T], Any]) -> PerHost:
    """Do something on all hosts at once; those that fail do not stop the others."""
    done: dict[str, Any] = {}
    failed: dict[str, JellyfishError] = {}
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        tasks = {name: pool.submit(do, host) for name, host in hosts.items()}
    for name, task in tasks.items():
        try:
            done[name] = task.result()
        except JellyfishError as error:
            failed[name] = error
    return PerHost(done, failed)


class Fleet:
    """All hosts of a config, held for this process: a context manager.

    Args:
        config: names the hosts file, and says whether to wait for another manager.
        root: the checkout, whose code runs on the hosts.
        shapes: whether to check that clients' uplinks can be shaped there.
        clients: whether client hosts are taken too; else the server's alone.

    Raises:
        ConfigError: the hosts file cannot be used, or the checkout is dirty.
    """

    def __init__(
        self, config: Config, root: Path, *, shapes: bool = True, clients: bool = True
    ) -> None:
        self.spec: Hosts = read_hosts(root / str(config["hosts"]))
        self._config, self._root = config, root
        self._clients, self._shapes = clients, shapes and clients
        deploy.check_clean(root, str(config["allow_dirty"]).lower() == "true")
        self._code = deploy.code_of(root)
        self._stack = ExitStack()
        self._hosts: dict[str, RemoteHost] = {}

    def __enter__(self) -> Fleet:
        """Reach all, look at all, supply all, then take them one by one.

        Raises:
            RunError: something is wrong with a host; the text has a line for each such host.
        """
        with ExitStack() as undo:
            every = self.spec.every if self._clients else (self.spec.server,)
            specs = {spec.name: spec for spec in every}
            reached = {name: Ssh(spec, self.spec) for name, spec in specs.items()}
            for ssh in reached.values():
                undo.callback(ssh.close)
            ready = on_each(reached, self._prepare).results()
            owner = _owner(waits=self._config["lock"] == "wait")
            # In one order for all managers: no two may wait for each other.
            for name in sorted(ready, key=lambda name: (reached[name].address, name)):
                facts, code, python = ready[name]
                host = RemoteHost(reached[name], specs[name], facts, code, python, owner)
                self._hosts[name] = undo.enter_context(host)
            if self._shapes:
                names = {name: name for name in self._client_names()}
                on_each(names, self._check_shaping).results()
            self._stack = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _client_names(self) -> list[str]:
        return [spec.name for spec in self.spec.clients]

    def _prepare(self, ssh: Ssh) -> tuple[Facts, str, str]:
        """Do all that comes before a host is taken; nothing there is disturbed by it."""
        ssh.open()
        spec = ssh.spec
        facts = look(ssh, spec)
        code = deploy.put_code(ssh, facts, self._code)
        made = spec.python is None and spec.conda is None
        python = deploy.put_environment(ssh, facts, self._root, made)
        role = "server" if spec is self.spec.server else "client"
        deploy.try_role(ssh, role, python, code, self._server_needs() if role == "server" else ())
        return facts, code, python

    def _server_needs(self) -> tuple[str, ...]:
        """Return what has to work on the server, beside its imports, as Python statements.

        Schedulers compile when they are first used; that is part of setting up.
        """
        measured = [cell for cell in cells(self._config) if cell.world == "measured"]
        kinds = {pick(self._config, "devices", cell.device)["kind"] for cell in measured}
        solvers = {policy(cell.policy).solver for cell in measured if self._clients}
        warm = [f"solvers.warm({name!r})" for name in sorted(solvers)]
        imports = sorted(f"import {name}" for kind in kinds for name in _DEVICE_MODULES[kind])
        return (*imports, "from jellyfish.scheduling import solvers", *warm)

    def _check_shaping(self, name: str) -> None:
        place = self._place(name, "preflight")
        place.begin()
        self._shaper(place).preflight()

    def shaping_commands(self, run: Run) -> dict[str, str]:
        """Return what tc would be told as root in `run`, by host, for people; nothing is changed.

        Raises:
            RunError, ConfigError: a host lacks something, such as tc.
        """
        found = {}
        at, traces = self.placement(run.key), uplinks(self._config, run, self._root)
        for place, shaper in zip(at.clients, at.shapers, strict=True):
            if isinstance(shaper, TcShaper):
                place.begin()
                found[shaper.host] = shaper.dry_run(at.shaped_by(shaper, traces))
        return found

    def server_place(self, key: str) -> RemotePlace:
        """Return a folder called `key` on the server's host."""
        return self._place(self.spec.server.name, key)

    def _place(self, name: str, key: str) -> RemotePlace:
        return RemotePlace(self._hosts[name], key, self.address)

    @staticmethod
    def _shaper(place: RemotePlace) -> Shaper:
        spec = place.host.spec
        return TcShaper(place, TcSettings(**spec.tc)) if spec.shaper == "tc" else RelayShaper()

    @property
    def address(self) -> str:
        """Where clients reach the server."""
        server: HostSpec = self.spec.server
        return server.client_address or self._hosts[server.name].ssh.address[0]

    def placement(self, key: str) -> Placement:
        """Return where the processes of the run called `key` live."""
        clients = tuple(self._place(name, key) for name in self._client_names())
        return Placement(
            server=self.server_place(key),
            clients=clients,
            shapers=tuple(self._shaper(place) for place in clients),
            listen=self.spec.server.listen or self.address,
            address=self.address,
        )

    def machine(self) -> dict[str, Any]:
        """Return what provenance says of the server's machine."""
        return self._hosts[self.spec.server.name].machine

    def description(self) -> dict[str, Any]:
        """Return what a run records of its hosts, JSON-like."""
        commit, dirty = provenance.checkout(self._root)
        return {
            "commit": commit,
            "dirty": dirty,
            "code": self._code.digest,
            "manager": platform.node(),
            "server": self.spec.server.name,
            "clients": self._client_names(),
            "hosts": {
                name: {**host.spec.settings(), **asdict(host.facts), **host.machine}
                for name, host in self._hosts.items()
            },
        }


def _owner(waits: bool) -> Owner:
    who = f"{getpass.getuser()}@{socket.gethostname()} process {os.getpid()}"
    return Owner(name=f"{who}, since {provenance.now()[:19]}Z", token=uuid.uuid4().hex, waits=waits)
