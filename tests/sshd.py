"""A real sshd on loopback, without root's configuration: keys, port and log in one folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
MISSING = "sshd and ssh-keygen are needed: `make install-testbed`"

_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host.key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 100
MaxSessions 100
SetEnv {variables}
Subsystem sftp internal-sftp
"""


def available() -> bool:
    """Whether there is an sshd to test with."""
    return SSHD is not None and shutil.which("ssh-keygen") is not None


class Sshd:
    """An sshd that lets the key `user.key` in; a context manager.

    Args:
        folder: for its files; TMPDIR of what runs over it is below, and with it the host's lock.
        below: a command that starts it, for example in a namespace.
        environment: more variables of what runs over it.
    """

    def __init__(
        self, folder: Path, below: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self._below = folder, below
        self._environment = {"TMPDIR": str(folder / "tmp"), **(environment or {})}
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.known_hosts = folder / "known_hosts"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sshd:
        (self.folder / "tmp").mkdir(parents=True)
        for name in ("user", "host", "stranger"):
            keygen(self.folder / f"{name}.key")
        shutil.copy(self.folder / "user.key.pub", self.folder / "authorized_keys")
        self.know(self.folder / "host.key.pub")
        variables = " ".join(f"{name}={value}" for name, value in self._environment.items())
        text = _CONFIG.format(port=self.port, folder=self.folder, variables=variables)
        (self.folder / "sshd_config").write_text(text)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def know(self, public_key: Path) -> None:
        """Have known_hosts say that the host has this key."""
        kind, value = public_key.read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {value}\n")

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert SSHD is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # compiled into it
        command = [*self._below, SSHD, "-D", "-f", str(self.folder / "sshd_config"), "-E"]
        self._process = subprocess.Popen([*command, str(self.folder / "sshd.log")])
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as there:
                return there.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """End it; sessions go on."""
        if self._process is not None:
            # What starts a namespace passes on no other signal than its own end.
            self._process.kill() if self._below else self._process.terminate()
            self._process.wait(10)
            self._process = None

    def host(self, **changes: Any) -> dict[str, Any]:
        """Return a host of a hosts file that is reached through it, by this very Python."""
        named = changes.get("name", "server")
        return {
            "address": "127.0.0.1",
            "user": getpass.getuser(),
            "port": self.port,
            "key": str(self.folder / "user.key"),
            "work": str(self.folder / "work" / named),
            "python": sys.executable,
            **changes,
        }

    def hosts_file(self, clients: int = 2, **server: Any) -> Path:
        """Write a hosts file of a server and some clients, all of them this machine."""
        value = {
            "known_hosts": str(self.known_hosts),
            "server": self.host(**server),
            "clients": [self.host(name=f"client-host-{i}") for i in range(clients)],
        }
        path = self.folder / "hosts.yaml"
        path.write_text(yaml.safe_dump(value))
        return path


def keygen(path: Path) -> None:
    """Make a key pair without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
