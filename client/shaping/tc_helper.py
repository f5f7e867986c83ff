"""Root's right to shape: `client.shaping.tc_root` as a child process, by `sudo -n` if need be.

It is never run from the checkout by sudo, which the user could change: an administrator installs a
copy that is root's own.
"""

from __future__ import annotations

import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from client.shaping import tc_root
from jellyfish.errors import RunError

INSTALLED = Path("/usr/local/sbin", tc_root.NAME)
_PATIENCE_S = 30.0


def root_command(interface: str) -> list[str]:
    """Return the one command line that needs root.

    Raises:
        RunError: the program, or sudo where it is needed, is not installed or not safe.
    """
    if os.geteuid() == 0:
        return [sys.executable, "-IS", tc_root.__file__, interface]
    if shutil.which("sudo") is None:
        raise RunError(f"{_cannot()}: sudo is not installed{_hint(interface)}")
    if not INSTALLED.exists():
        raise RunError(f"{_cannot()}: {INSTALLED} is not installed{_hint(interface)}")
    if (weak := changeable(INSTALLED)) is not None:
        raise RunError(
            f"{_cannot()}: {_user()} could change {weak}, and sudo runs {INSTALLED} as "
            f"root{_hint(interface)}"
        )
    return ["sudo", "-n", str(INSTALLED), interface]


def changeable(path: Path) -> Path | None:
    """Return what of a path this user could change or replace, links resolved; None for nothing."""
    real = path.resolve()
    for part in (path, *path.parents, real, *real.parents):
        if part.lstat().st_uid == os.geteuid() or os.access(part, os.W_OK):
            return part
    return None


def installing(interface: str) -> list[str]:
    """Return what an administrator does on a host once, for people to read."""
    rule = f"{_user()} ALL=(root) NOPASSWD: {INSTALLED} {interface}"
    return [_install(), f"visudo, to add this line: {rule}"]


def _install() -> str:
    return f"install -o root -g root -m 0755 {tc_root.__file__} {INSTALLED}"


def _user() -> str:
    """Return this user's name; sudo's word for a user without one. LOGNAME may be another's."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def _cannot() -> str:
    return f"{_user()}@{socket.gethostname()} may not shape traffic"


def _hint(interface: str) -> str:
    steps = "".join(f"\n    {step}" for step in installing(interface))
    return f". Log in as root, or let an administrator do this there once:{steps}"


class Helper:
    """The one process that runs as root: it holds an interface, and puts it back in the end.

    A context manager; so is what a dead run left there put back.

    Args:
        interface: its name.

    Raises:
        RunError: root is out of reach, or another run shapes there; the text says what to do.
    """

    def __init__(self, interface: str) -> None:
        self._process = subprocess.Popen(
            root_command(interface),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._told: str | None = None
        try:
            self._greet(interface)
        except BaseException:
            self._end()
            raise

    def _greet(self, interface: str) -> None:
        said = self._line()
        if said == f"{tc_root.NAME} {tc_root.VERSION}":
            return
        if said.startswith(f"{tc_root.NAME} "):
            raise RunError(
                f"{socket.gethostname()}: {INSTALLED} is of version {said.split()[-1]}, but "
                f"{tc_root.VERSION} is needed; let an administrator do: {_install()}"
            )
        told = self._end() or ascii(said)
        if told.startswith("sudo:"):
            raise RunError(f"{_cannot()}: {told}{_hint(interface)}")
        raise RunError(f"{socket.gethostname()}: {told}")

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: str) -> None:
        """Have it do something; return once it is done.

        Raises:
            RunError: it failed; the helper has ended.
        """
        self.send(request)
        if self._line() != "ok":
            raise self._ended()

    def send(self, request: str) -> None:
        """Have it do something soon.

        Raises:
            RunError: it has ended, since something failed earlier.
        """
        assert self._process.stdin is not None, "opened as a pipe"
        try:
            self._process.stdin.write(f"{request}\n".encode())
        except OSError:
            raise self._ended() from None

    def check(self) -> None:
        """Raise RunError if something has failed."""
        if self._process.poll() is not None:
            raise self._ended()

    def close(self) -> None:
        """Have the interface put back.

        Raises:
            RunError: that, or something before it, failed.
        """
        told = self._end()
        if self._process.returncode != 0:
            raise RunError(f"{socket.gethostname()}: tc ended: {told}")

    def _ended(self) -> RunError:
        return RunError(f"{socket.gethostname()}: tc ended: {self._end()}")

    def _end(self) -> str:
        """Close its input, which ends it; return what it says.

        Raises:
            RunError: it does not end.
        """
        if self._told is None:
            try:
                _, told = self._process.communicate(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                raise RunError(
                    f"{socket.gethostname()}: process {self._process.pid}, which shapes as root, "
                    f"does not end within {_PATIENCE_S:g} s"
                ) from None
            self._told = told.decode(errors="replace").strip()
        return self._told

    def _line(self) -> str:
        assert self._process.stdout is not None, "opened as a pipe"
        end, line = self._process.stdout.fileno(), b""
        while select.select([end], [], [], _PATIENCE_S)[0] and (data := os.read(end, 256)):
            line += data
            if line.endswith(b"\n") or len(line) > 1024:
                break
        return line.decode(errors="replace").strip()
