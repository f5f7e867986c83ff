"""What shaping asks of the host: its interface, root's right to `tc -batch -`, and tidiness.

Only `tc -batch -` runs as root; whoever may not be root runs it by `sudo -n`.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from client.shaping.tc_commands import PORTS_EACH, Qdisc, root_qdisc
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


def root_command() -> list[str]:
    """Return the one command line that needs root; tc's commands go to its standard input.

    Raises:
        RunError: tc, or sudo where it is needed, is not installed.
    """
    command = [tool("tc"), "-batch", "-"]
    if os.geteuid() == 0:
        return command
    if shutil.which("sudo") is None:
        raise RunError(
            f"{_cannot()}: sudo is not installed. Log in as root, or install it{_hint()}"
        )
    return ["sudo", "-n", *command]


def _cannot() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()} may not shape traffic"


def _hint() -> str:
    rule = f"{getpass.getuser()} ALL=(root) NOPASSWD: {tool('tc')} -batch -"
    return f", and let an administrator add this line by `visudo`:\n    {rule}"


def apply(lines: Sequence[str]) -> None:
    """Have tc execute commands as root, in one go.

    Raises:
        RunError: one failed, or root is out of reach; the text says what to do.
    """
    done = subprocess.run(
        root_command(),
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
    said = done.stderr.strip()
    if done.returncode != 0 and said.startswith("sudo:"):
        raise RunError(f"{_cannot()}: {said}. Log in as root{_hint()}")
    if done.returncode != 0:
        raise RunError(f"{socket.gethostname()}: tc: {said or f'exit code {done.returncode}'}")


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


class Claim:
    """The right to shape one interface, held by one process at a time; a context manager.

    It is an abstract Unix socket: of this network namespace, for all users, gone with its holder.

    Raises:
        RunError: another process holds it.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Claim:
        try:
            self._socket.bind(f"\0jellyfish-tc-{self._interface}")
        except OSError:
            self._socket.close()
            raise RunError(
                f"{socket.gethostname()}: another run shapes {self._interface} now; "
                "wait for its end, or stop it"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class Memory:
    """Remembers the root qdisc of an interface while ours is in its place, across processes.

    A file of this user, for this host, boot, network namespace and interface.
    """

    def __init__(self, interface: str, folder: Path | None = None) -> None:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self._folder = folder or base / "jellyfish"
        self._boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/net").stat().st_ino
        self._path = self._folder / f"tc-{socket.gethostname()}-{namespace}-{interface}.json"

    def keep(self, qdisc: Qdisc) -> None:
        """Remember a qdisc."""
        self._folder.mkdir(parents=True, exist_ok=True)
        value = {"boot": self._boot, "qdisc": [qdisc.kind, qdisc.handle, qdisc.options]}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(value))
        part.replace(self._path)

    def recall(self) -> Qdisc:
        """Return what was remembered; the kernel's default, where nothing (valid) was."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            value = json.loads(self._path.read_text())
            if value["boot"] == self._boot:
                return Qdisc(*value["qdisc"])
        return Qdisc("default", "0:", "")

    def forget(self) -> None:
        """Remove the file, and the folder if that leaves it empty."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()


def clean_up(interface: Interface, memory: Memory) -> bool:
    """Put back the root qdisc that ours has replaced; return whether there was anything of ours.

    Raises:
        RunError: tc fails, or shows another qdisc than before.
    """
    if not interface.root().ours:
        memory.forget()
        return False
    before = memory.recall()
    apply(before.commands(interface.name))
    after = interface.root()
    if not before.default and after != before:
        raise RunError(
            f"{socket.gethostname()}: {interface.name} had `{before.kind} {before.options}` and "
            f"got back `{after.kind} {after.options}`"
        )
    memory.forget()
    return True


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
