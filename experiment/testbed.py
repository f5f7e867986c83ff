"""A testbed on one machine: network namespaces as server and client hosts, each with its sshd.

`python -m experiment.testbed up` (as root) makes a server, clients and a switch between them; this
machine's own namespace reaches all of them through a virtual cable of its own. Keys, host keys,
logs and the hosts file lie in one folder. `down` ends every process in the namespaces and removes
all of it. Every name begins with the testbed's prefix, and nothing else is ever touched.
"""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiment import processes
from jellyfish.errors import ConfigError, JellyfishError, RunError

PREFIX = "jf"
NETWORK = "10.74.70.0/24"
INTERFACE = "eth0"
INSTALL = "make install-testbed"
PROGRAMS = ("ip", "tc", "sshd", "ssh-keygen")
_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_START_S = 10.0
_GRACE_S = 2.0

_SSHD = """\
ListenAddress {address}
HostKey {folder}/{name}.key
PidFile {folder}/{name}.sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""
# The namespace's processes see a /run of their own: sshd wants a directory in there.
_START_SSHD = 'mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd && exec "$@"'

_SSH_CONFIG = """\
Host {name}
  HostName {address}
  User {user}
  IdentityFile {folder}/user.key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
"""


@dataclass(frozen=True, slots=True)
class Node:
    """One host of the testbed: a namespace with one interface."""

    name: str
    namespace: str
    address: str


def missing() -> str | None:
    """Return why no testbed can be made here, or None where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [name for name in PROGRAMS if _which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed; say {INSTALL}"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    return None


class NamespaceTestbed:
    """A server and client hosts in namespaces; a context manager that makes and removes them.

    Args:
        folder: keys, configuration, logs and `hosts.yaml`; made, and removed in the end.
        prefix: what every name of a namespace or link begins with; at most 7 characters.
        network: an IPv4 network that is not in use here; this machine gets its first address.
        clients: how many client hosts.
        environment: variables of whoever logs in.

    Raises:
        ConfigError: the prefix or the network cannot be used.
    """

    __test__ = False  # no test class, whatever pytest takes its name for

    def __init__(
        self,
        folder: Path,
        prefix: str = PREFIX,
        network: str = NETWORK,
        clients: int = 2,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not (prefix.isalnum() and len(prefix) <= 7):
            raise ConfigError(f"testbed prefix {prefix!r}: want up to 7 letters and digits")
        try:
            self._network = ipaddress.IPv4Network(network)
        except ValueError as error:
            raise ConfigError(f"testbed network {network}: {error}") from None
        if self._network.num_addresses < clients + 4:
            raise ConfigError(f"testbed network {network} is too small for {clients + 2} hosts")
        self.folder = folder.absolute()
        self.prefix = prefix
        self._environment = environment or {}
        names = ["server", *(f"client-{i + 1}" for i in range(clients))]
        self.nodes = tuple(
            Node(name, f"{prefix}-{name}", str(self._network[i + 2]))
            for i, name in enumerate(names)
        )
        self._switch = f"{prefix}-switch"
        self._cable = f"{prefix}-manager"

    def __enter__(self) -> NamespaceTestbed:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def server(self) -> Node:
        """The host for the server."""
        return self.nodes[0]

    @property
    def clients(self) -> tuple[Node, ...]:
        """The hosts for clients."""
        return self.nodes[1:]

    @property
    def manager(self) -> str:
        """This machine's own address in the testbed's network."""
        return str(self._network[1])

    @property
    def user_key(self) -> Path:
        """The private key that every host accepts."""
        return self.folder / "user.key"

    @property
    def known_hosts(self) -> Path:
        """The hosts' public keys."""
        return self.folder / "known_hosts"

    @property
    def hosts(self) -> Path:
        """The hosts file, for a scenario's `hosts`."""
        return self.folder / "hosts.yaml"

    @property
    def ssh_config(self) -> Path:
        """An ssh_config that knows each host by its name: `ssh -F ssh_config PREFIX-server`."""
        return self.folder / "ssh_config"

    def up(self) -> None:
        """Make all of it, anew if some of it is there already; do nothing if all of it is.

        Raises:
            RunError: it cannot be made here; the text says why.
        """
        if why := missing():
            raise RunError(f"no testbed: {why}")
        if self.answers():
            self._write_hosts()  # another checkout may ask now
            return
        self.down()
        if taken := _shell("ip", "-4", "route", "show", "root", str(self._network)).strip():
            raise RunError(f"no testbed: {self._network} is in use here: {taken.splitlines()[0]}")
        self._lay_cables()
        self._write_keys()
        self._write_hosts()
        for node in self.nodes:
            self._start_sshd(node)
        self._await()

    def answers(self) -> bool:
        """Whether all of it is there, and every host's sshd answers."""
        there = {node.namespace for node in self.nodes} | {self._switch} <= set(namespaces())
        there = there and self.ssh_config.exists()
        return there and all(_answers(node.address) for node in self.nodes)

    def down(self) -> None:
        """Remove all of it: processes, namespaces, links and the folder. Nothing there is fine."""
        there = set(namespaces())
        own = [node.namespace for node in self.nodes] + [self._switch]
        for namespace in (name for name in own if name in there):
            remove_namespace(namespace)
        processes.end(self._nameless(), _GRACE_S)
        if Path("/sys/class/net", self._cable).exists():
            subprocess.run([_tool("ip"), "link", "delete", self._cable], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _nameless(self) -> list[processes.ProcessId]:
        """Return the sshd that still run in a namespace whose name somebody has deleted."""
        pids = [int(path.read_text()) for path in self.folder.glob("*.sshd.pid")]
        found = [process for pid in pids if (process := processes.identify(pid))]
        return [one for one in found if str(self.folder) in " ".join(processes.command(one.pid))]

    def _lay_cables(self) -> None:
        bits = self._network.prefixlen
        switch = ("ip", "-n", self._switch)
        _shell("ip", "netns", "add", self._switch)
        _shell(*switch, "link", "add", "switch", "type", "bridge")
        _shell(*switch, "link", "set", "switch", "up")
        for node in self.nodes:
            inside = ("ip", "-n", node.namespace)
            _shell("ip", "netns", "add", node.namespace)
            self._cable_to(node.name, INTERFACE, "netns", node.namespace)
            _shell(*inside, "address", "add", f"{node.address}/{bits}", "dev", INTERFACE)
            _shell(*inside, "link", "set", INTERFACE, "up")
            _shell(*inside, "link", "set", "lo", "up")
        self._cable_to("manager", self._cable)
        _shell("ip", "address", "add", f"{self.manager}/{bits}", "dev", self._cable)
        _shell("ip", "link", "set", self._cable, "up")

    def _cable_to(self, name: str, interface: str, *where: str) -> None:
        """Join `interface` and the switch's port `name` by a virtual cable."""
        peer = ("type", "veth", "peer", "name", name, "netns", self._switch)
        _shell("ip", "link", "add", interface, *where, *peer)
        _shell("ip", "-n", self._switch, "link", "set", name, "master", "switch", "up")

    def _write_keys(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        _keygen(self.user_key, f"{self.prefix}-testbed")
        shutil.copy(self.user_key.with_suffix(".key.pub"), self.folder / "authorized_keys")
        known, config = [], []
        for node in self.nodes:
            key = self.folder / f"{node.name}.key"
            _keygen(key, node.namespace)
            kind, value = key.with_suffix(".key.pub").read_text().split()[:2]
            known.append(f"{node.address} {kind} {value}\n")
            config.append(
                _SSH_CONFIG.format(
                    name=node.namespace,
                    address=node.address,
                    user=getpass.getuser(),
                    folder=self.folder,
                )
            )
        self.known_hosts.write_text("".join(known))
        self.ssh_config.write_text("".join(config))

    def _write_hosts(self) -> None:
        """Write the hosts file: what a scenario's `hosts` names."""
        entries = [
            {
                "name": node.name,
                "address": node.address,
                "user": getpass.getuser(),
                "key": self.user_key.name,
                "work": str(self.folder / f"{node.name}.work"),
                "python": sys.executable,
                "interface": INTERFACE,
            }
            for node in self.nodes
        ]
        value = {
            "known_hosts": self.known_hosts.name,
            "server": entries[0],
            "clients": [{**entry, "shaper": "tc"} for entry in entries[1:]],
        }
        self.hosts.write_text(yaml.safe_dump(value, sort_keys=False))

    def _start_sshd(self, node: Node) -> None:
        config = self.folder / f"{node.name}.sshd_config"
        lines = _SSHD.format(address=node.address, folder=self.folder, name=node.name)
        if self._environment:
            variables = (f"{key}={value}" for key, value in self._environment.items())
            lines += f"SetEnv {' '.join(variables)}\n"
        config.write_text(lines)
        log = self.folder / f"{node.name}.sshd.log"
        sshd = (_tool("sshd"), "-f", str(config), "-E", str(log))
        self.execute(node, "sh", "-c", _START_SSHD, "sh", *sshd)

    def execute(self, node: Node, *command: str) -> str:
        """Run a command in the namespace of `node`, without SSH; return what it says.

        Raises:
            RunError: it fails.
        """
        return _shell("ip", "netns", "exec", node.namespace, *command)

    def _await(self) -> None:
        deadline = time.monotonic() + _START_S
        for node in self.nodes:
            while not _answers(node.address):
                if time.monotonic() > deadline:
                    log = self.folder / f"{node.name}.sshd.log"
                    said = log.read_text().strip() if log.exists() else ""
                    raise RunError(f"sshd of {node.namespace} does not answer: {said or 'no log'}")
                time.sleep(0.02)


def namespaces() -> list[str]:
    """Return the names of this machine's network namespaces."""
    return [line.split()[0] for line in _shell("ip", "netns", "list").splitlines() if line]


def remove_namespace(name: str) -> None:
    """End every process in a network namespace, and remove it with its links."""
    pids = map(int, _shell("ip", "netns", "pids", name).split())
    processes.end([found for pid in pids if (found := processes.identify(pid))], _GRACE_S)
    _shell("ip", "netns", "delete", name)


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as there:
            return there.recv(4) == b"SSH-"
    except OSError:
        return False


def _keygen(path: Path, comment: str) -> None:
    _shell("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}")


def _tool(name: str) -> str:
    return _which(name) or name


def _shell(program: str, *arguments: str) -> str:
    command = [_tool(program), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise RunError(f"{program}: {error.strerror}; say {INSTALL}") from error
    if done.returncode != 0:
        raise RunError(f"`{' '.join([program, *arguments])}` failed: {done.stderr.strip()}")
    return done.stdout


def default_folder() -> Path:
    """Return where `make testbed` puts its files."""
    return Path("/tmp", f"jellyfish-testbed-{os.getuid()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or remove a testbed; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiment.testbed", description=__doc__)
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="keys and logs")
    parser.add_argument("--prefix", default=PREFIX, help="of every name")
    parser.add_argument("--network", default=NETWORK, help="IPv4, not in use here")
    parser.add_argument("--clients", type=int, default=2, help="how many client hosts")
    options = parser.parse_args(arguments)
    try:
        testbed = NamespaceTestbed(options.folder, options.prefix, options.network, options.clients)
        testbed.up() if options.action == "up" else testbed.down()
    except JellyfishError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    if options.action == "up":
        for node in testbed.nodes:
            way_in = f"ssh -F {testbed.ssh_config} {node.namespace}"
            print(f"{node.namespace:14} {node.address:14} {way_in}")
        print(f"the hosts file: {testbed.hosts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
