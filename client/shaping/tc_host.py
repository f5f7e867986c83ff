"""What shaping asks of the host: its interface, the way to the server, and free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from client.shaping.tc_root import PORTS_EACH, Qdisc, root_qdisc
from jellyfish.errors import ConfigError, RunError

_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
_PATIENCE_S = 20.0


def tool(name: str) -> str:
    """Return where a system program lies.

    Raises:
        RunError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if found is None:
        raise RunError(f"{socket.gethostname()}: {name} is not installed (Debian: iproute2)")
    return found


def show(what: str, interface: str, *options: str) -> str:
    """Return what `tc OPTIONS WHAT show dev INTERFACE` prints.

    Raises:
        RunError: it fails.
    """
    return _output(tool("tc"), *options, what, "show", "dev", interface)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    if done.returncode != 0:
        raise RunError(f"{socket.gethostname()}: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def address_of(server: str) -> str:
    """Return the IP address of a host name or address.

    Raises:
        RunError: it is not known here.
    """
    try:
        return str(socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise RunError(f"{socket.gethostname()} does not know server {server}: {error}") from None


def interface_to(address: str) -> str:
    """Return the interface by which packets to `address` leave.

    Raises:
        RunError: there is no way to it.
    """
    shown = _output(tool("ip"), "-o", "route", "get", address).split()
    if "dev" not in shown:
        raise RunError(f"{socket.gethostname()} has no way to {address}: {' '.join(shown)}")
    return shown[shown.index("dev") + 1]


class Interface:
    """A network interface of this host.

    Args:
        name: what it is called.

    Raises:
        ConfigError: there is none of that name; the text says which there are.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = Path("/sys/class/net", name)
        if not name or not self._folder.exists():
            there = ", ".join(sorted(path.name for path in self._folder.parent.iterdir()))
            raise ConfigError(
                f"{socket.gethostname()} has no interface {name!r}; there are: {there}"
            )

    @property
    def mtu(self) -> int:
        """Its MTU in bytes."""
        return int((self._folder / "mtu").read_text())

    @property
    def queue_frames(self) -> int:
        """How many frames may wait that no class shapes; at least the usual 1000."""
        return max(int((self._folder / "tx_queue_len").read_text()), 1000)

    def root(self) -> Qdisc:
        """Return its root qdisc.

        Raises:
            RunError: tc shows none.
        """
        found = root_qdisc(show("qdisc", self.name))
        return found or Qdisc("noqueue", "0:", "")

    def check_way(self, address: str) -> None:
        """Check that packets to `address` leave by this interface, or nothing would be shaped.

        Raises:
            ConfigError: they leave by another one.
        """
        way = interface_to(address)
        if way != self.name:
            raise ConfigError(
                f"{socket.gethostname()}: {address} is reached by {way}, not by {self.name}; "
                f"name {way} as this host's interface"
            )


def check_ports(first_ports: Sequence[int]) -> None:
    """Check that the blocks of source ports are no one else's.

    Raises:
        ConfigError: the kernel may give such a port to any connection, or one is in use.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    used = _used_ports()
    for first in first_ports:
        last = first + PORTS_EACH - 1
        if first <= high and last >= low:
            raise ConfigError(
                f"{socket.gethostname()}: source ports {first} to {last} lie among those that "
                f"every connection may get ({low} to {high}); choose another first port"
            )
        if taken := sorted(used & set(range(first, last + 1))):
            raise ConfigError(
                f"{socket.gethostname()}: source port {taken[0]} is in use; "
                "choose another first port"
            )


def _used_ports() -> set[int]:
    """Return the local ports of TCP sockets; not of those that only wait for their time to end."""
    time_wait = "06"
    found = set()
    for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if path.exists():
            for line in path.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] != time_wait:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found
