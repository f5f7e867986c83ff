"""SSH connections to the hosts of an experiment: strict host keys, keys or an agent, keep-alives.

What goes wrong is told in one line that names the host and says what to do.
"""

from __future__ import annotations

import logging
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fabric import Config, Connection
from fabric.runners import Remote
from invoke.exceptions import CommandTimedOut
from paramiko.client import MissingHostKeyPolicy, SSHClient
from paramiko.pkey import PKey
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    NoValidConnectionsError,
    PasswordRequiredException,
    SSHException,
)

from experiment.host_file import Hosts, HostSpec
from experiment.places import FULL_MB
from jellyfish.errors import ConfigError, JellyfishError, RunError

CONNECT_TIMEOUT_S = 5
TRIES = 3
PAUSE_S = 1.0
KEEP_ALIVE_S = 3
DEAD_S = 15.0  # bytes that nobody acknowledges for so long mean that the way is cut
USUAL_KNOWN_HOSTS = Path("~/.ssh/known_hosts")

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # errors are told here, once


class UnknownHostKeyError(SSHException):  # type: ignore[misc]
    """The host's key is in no known_hosts file; `args` hold its kind and fingerprint."""


class _Remote(Remote):  # type: ignore[misc]
    """Knows what it has cut off: Invoke asks the timer's thread, which may not have ended yet."""

    timed_out = False

    def kill(self) -> None:
        """End the command, whose time is over."""
        self.timed_out = True
        super().kill()


class _Reject(MissingHostKeyPolicy):  # type: ignore[misc]
    """Connect to no host whose key is unknown."""

    def missing_host_key(self, client: SSHClient, hostname: str, key: PKey) -> None:
        raise UnknownHostKeyError(key.get_name(), key.fingerprint)


class Ssh:
    """One host behind the interface of `experiment.hosts.Connection`; a context manager.

    Args:
        spec: the host.
        hosts: the file that it is from.

    Raises:
        ConfigError: there is no known_hosts file.
    """

    def __init__(self, spec: HostSpec, hosts: Hosts) -> None:
        self.spec = spec
        self.host = spec.name
        config = Config(
            overrides={"runners": {"remote": _Remote}},
            runtime_ssh_path=str(hosts.ssh_config) if hosts.ssh_config else None,
        )
        self.fabric = Connection(
            spec.address,
            user=spec.user,
            port=spec.port,
            config=config,
            connect_timeout=CONNECT_TIMEOUT_S,
            connect_kwargs=_keys(spec),
        )
        self.known_hosts = _known_hosts(self.fabric, hosts)
        for hop in _hops(self.fabric):
            hop.client.set_missing_host_key_policy(_Reject())
            hop.client.load_host_keys(str(self.known_hosts))

    def __enter__(self) -> Ssh:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Ssh:
        """Connect; a host that does not answer is tried again, one that refuses is not.

        Raises:
            RunError: no connection comes about; the text names the host and says what to do.
        """
        for left in reversed(range(TRIES)):
            try:
                self._open()
            except (OSError, SSHException, EOFError) as error:
                if _is_final(error) or not left:
                    self.close()
                    raise self._explained(error) from error
                time.sleep(PAUSE_S)
            else:
                break
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Where the host is, as ssh_config resolves it: name or address, and port."""
        return str(self.fabric.host), int(self.fabric.port)

    def _open(self) -> None:
        self.fabric.open()
        transport = self.fabric.transport
        transport.set_keepalive(KEEP_ALIVE_S)
        if isinstance(transport.sock, socket.socket):  # not through a gateway
            patience_ms = int(DEAD_S * 1000)
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience_ms)

    def run(self, command: str, **options: Any) -> Any:
        """Run a command in a POSIX shell there (see `invoke.Context.run`).

        Raises:
            RunError: the connection is gone, or the command took longer than `timeout`.
        """
        try:
            return self.fabric.run(
                f"sh -c {shlex.quote(command)}", **{"hide": True, "in_stream": False, **options}
            )
        except CommandTimedOut as error:
            raise RunError(f"{self.host}: no end after {error.timeout} s: {command}") from error
        except (OSError, SSHException, EOFError) as error:
            raise self._explained(error) from error

    def said(self, command: str, timeout_s: float = 30.0) -> str:
        """Return what a command prints.

        Raises:
            RunError: it fails; the text is what it says, after the host's name.
        """
        done = self.run(command, warn=True, timeout=timeout_s)
        if done.exited != 0:
            why = done.stderr.strip() or f"exit code {done.exited} of: {command}"
            raise RunError(f"{self.host}: {why}")
        return str(done.stdout).strip()

    def put(self, local: str, remote: str | None = None) -> Any:
        """Copy a file to the host.

        Raises:
            RunError: it cannot be written there.
        """
        try:
            return self._copied(lambda: self.fabric.put(local, remote), f"write {remote}")
        except RunError as error:
            if remote is not None and self._is_full(remote):
                raise RunError(f"{self.host}: cannot write {remote}: its disk is full") from error
            raise

    def _is_full(self, path: str) -> bool:
        """Whether there is no space for a file: SFTP's errors do not tell."""
        shown = self.said(f"df -Pk {shlex.quote(str(Path(path).parent))} | tail -n 1")
        return int(shown.split()[3]) * 1024 / 1e6 < FULL_MB

    def get(self, remote: str, local: str | None = None) -> Any:
        """Copy a file from the host.

        Raises:
            RunError: it cannot be read there.
        """
        return self._copied(lambda: self.fabric.get(remote, local), f"read {remote}")

    def _copied(self, copy: Callable[[], Any], what: str) -> Any:
        try:
            return copy()
        except (OSError, SSHException, EOFError) as error:
            raise RunError(f"{self.host}: cannot {what}: {_text(error)}") from error

    def close(self) -> None:
        """End the connection, and those to hosts on the way."""
        for hop in _hops(self.fabric):
            hop.close()
            hop.client.close()  # also where opening it broke off

    def _explained(self, error: Exception) -> JellyfishError:
        return RunError(f"{self.host} ({self._who()}): {self._why(error)}")

    def _who(self) -> str:
        return f"{self.fabric.user}@{self.fabric.host} port {self.fabric.port}"

    def _why(self, error: Exception) -> str:
        address = _known_as(self.fabric.host, self.fabric.port)
        if isinstance(error, BadHostKeyException):
            return (
                f"its host key has changed: it shows {error.key.fingerprint}, "
                f"{self.known_hosts} has {error.expected_key.fingerprint}. If the machine was set "
                f"up anew, say `ssh-keygen -R '{address}' -f {self.known_hosts}` and add the new "
                "key; if not, somebody may be in between"
            )
        if isinstance(error, UnknownHostKeyError):
            kind, fingerprint = error.args
            return (
                f"its host key is unknown: {kind} {fingerprint} is not in {self.known_hosts}. "
                f"Compare it with the machine's, then say `ssh-keyscan -p {self.fabric.port} "
                f"{self.fabric.host} >> {self.known_hosts}`"
            )
        if isinstance(error, PasswordRequiredException):
            return f"the key {self.spec.key} has a passphrase; add it to an agent: ssh-add"
        if isinstance(error, AuthenticationException):
            what = f"the key {self.spec.key}" if self.spec.key else "any key of the agent or ~/.ssh"
            return f"it does not accept {what}; let it: ssh-copy-id ({_text(error)})"
        return f"it cannot be reached: {_text(error)}"


def _keys(spec: HostSpec) -> dict[str, Any]:
    """Say which keys to offer: the named one and the agent's, or whatever there is."""
    if spec.key is None:
        return {"allow_agent": True, "look_for_keys": True}
    return {"key_filename": str(spec.key), "allow_agent": True, "look_for_keys": False}


def _known_hosts(connection: Connection, hosts: Hosts) -> Path:
    """Return the file of known keys: the hosts file's, else ssh_config's, else the usual one."""
    configured = str(connection.ssh_config.get("userknownhostsfile", "")).split()
    named = hosts.known_hosts or (Path(configured[0]) if configured else USUAL_KNOWN_HOSTS)
    path = named.expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{hosts.path}: known_hosts: no file {path}; say `ssh {connection.host}` once"
        )
    return path


def _hops(connection: Connection) -> list[Connection]:
    """Return the connection and those to the hosts on the way, the last hop first."""
    found = [connection]
    while isinstance(found[-1].gateway, Connection):
        found.append(found[-1].gateway)
    return found


def _is_final(error: Exception) -> bool:
    kinds = (BadHostKeyException, UnknownHostKeyError, AuthenticationException, socket.gaierror)
    return isinstance(error, kinds)


def _known_as(host: str, port: int) -> str:
    """Return the name under which known_hosts has a host."""
    return host if port == 22 else f"[{host}]:{port}"


def _text(error: Exception) -> str:
    if isinstance(error, NoValidConnectionsError):
        return "; ".join(sorted({str(one) for one in error.errors.values()}))
    return str(error) or type(error).__name__
