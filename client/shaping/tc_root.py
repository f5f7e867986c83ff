#!/usr/bin/python3 -IS
"""Shape clients' uplinks on one interface, as root: all that sudo has to permit.

    jellyfish-tc INTERFACE      # installed root-owned, see docs/machines.md; else python -IS FILE

Whoever may run it is not trusted. It takes requests from standard input, a line each, and tc gets
only lines that are built here from numbers within BOUNDS, for the one interface that the sudoers
line names and for handles of our own. The end of its input ends it; however it ends, short of
SIGKILL, it puts back the root qdisc. After a SIGKILL the next one does so, before all else.

    root QUEUE_FRAMES                                     replaces the root qdisc by our own htb
    tbf NUMBER FIRST_PORT RATE BURST LIMIT FRAME          adds a client: a tbf below its class
    htb NUMBER FIRST_PORT RATE BURST LIMIT FRAME          the same, by the class alone
    rate NUMBER RATE BURST                                gives a client another rate

Rates are in bit/s, the rest in bytes. It says `jellyfish-tc VERSION` once it holds the interface,
and `ok` once tc has done a request; `rate` gets no answer. The first failure ends it, exit code 1.

It needs Python 3.9 or newer and nothing else: `-I` keeps environment, user and current directory
out of the import path, `-S` site-packages.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

VERSION = 1  # raise it with every change of requests or of what is refused: hosts then ask for it
NAME = "jellyfish-tc"
MAJOR = 0x4A46  # "JF": by this handle a later run knows what a dead one left
HANDLE = f"{MAJOR:x}:"
PORTS_EACH = 16  # a block of so many source ports is one client's; a power of two, as masks are
LEAVES = ("tbf", "htb")
UNLIMITED_BPS = 100_000_000_000
LONGEST = 128  # bytes of a request

_UPLINK = ("number", "first_port", "rate", "burst", "limit", "frame")
_RATE = ("number", "rate", "burst")
VERBS = {"root": ("queue_frames",), "tbf": _UPLINK, "htb": _UPLINK, "rate": _RATE}
BOUNDS = {
    "queue_frames": (1000, 1_000_000),  # with fewer, one could starve what is not shaped
    "number": (1, 4032),  # blocks of ports; handles up to 5a06:
    "first_port": (1024, 65536 - PORTS_EACH),
    "rate": (1000, UNLIMITED_BPS),
    "burst": (64, 1 << 24),
    "limit": (64, (1 << 32) - 1),
    "frame": (64, 65_550),  # the loopback's
}

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,11}")
# Root qdiscs that somebody has set and that can be put back from what tc shows of them.
_RESTORABLE = ("pfifo", "bfifo", "pfifo_fast", "tbf", "codel", "fq_codel", "sfq")
_OPTIONS = re.compile(r"(?:[A-Za-z0-9_./]+ ?)*")

_TC = ("/usr/sbin/tc", "/sbin/tc")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_FOLDER = "/run/jellyfish-tc"  # root's; gone with the boot, as qdiscs are
_TC_S = 20.0
_CLAIM_S = 1.0  # for one that puts back just now


class RefusedError(Exception):
    """A request, or the state of the host, that this program does not go along with."""


class Qdisc(NamedTuple):
    """A root qdisc, as `tc qdisc show` tells it; with handle `0:` the kernel chose it itself."""

    kind: str
    handle: str
    options: str

    @property
    def ours(self) -> bool:
        """Whether a shaper of this program made it."""
        return self.handle == HANDLE

    @property
    def default(self) -> bool:
        """Whether the kernel chose it, and would again once another one is deleted."""
        return self.handle == "0:"

    @property
    def restorable(self) -> bool:
        """Whether it can be put back after another one has taken its place."""
        return self.default or (self.kind in _RESTORABLE and bool(_OPTIONS.fullmatch(self.options)))

    def commands(self, interface: str) -> list[str]:
        """Return what puts it back in the place of another one."""
        if self.default:
            return [f"qdisc delete dev {interface} root"]
        options = "" if self.kind == "pfifo_fast" else self.options
        # What tc shows, it does not always understand: 100p for packets, 10sec for seconds.
        options = re.sub(r"\b(\d+)(?:p|sec)(?=\s|$)", r"\1", options)
        command = f"qdisc replace dev {interface} root handle {self.handle} {self.kind} {options}"
        return [f"qdisc delete dev {interface} root", command.strip()]


_DEFAULT = Qdisc("noqueue", "0:", "")


def root_qdisc(shown: str) -> Qdisc | None:
    """Return the root qdisc in what `tc qdisc show dev INTERFACE` prints, or None."""
    for line in shown.splitlines():
        found = re.match(r"qdisc (\S+) ([0-9a-f]*:) (?:dev \S+ )?root(?: refcnt \d+)?(.*)$", line)
        if found:
            return Qdisc(found[1], found[2], found[3].strip())
    return None


def parse(request: bytes) -> tuple[str, list[int]]:
    """Return a request's verb and numbers.

    Raises:
        RefusedError: it is not one of VERBS, each number within BOUNDS, between single spaces.
    """
    verb, *words = request[: LONGEST + 1].split(b" ")
    fields = VERBS.get(verb.decode("ascii", "replace"))
    if len(request) > LONGEST or fields is None or len(words) != len(fields):
        wanted = "; ".join(" ".join((name, *fields)) for name, fields in VERBS.items())
        raise RefusedError(f"request {request[:LONGEST]!a}: want one of: {wanted}")
    return verb.decode(), [_number(field, word) for field, word in zip(fields, words)]  # noqa: B905


def _number(field: str, word: bytes) -> int:
    least, most = BOUNDS[field]
    if _NUMBER.fullmatch(word) is None or not least <= int(word) <= most:
        raise RefusedError(f"{field} {word!a}: want a number from {least} to {most}")
    return int(word)


class Uplink(NamedTuple):
    """A client's class, as requests describe it."""

    leaf: str
    number: int
    first_port: int
    rate: int
    burst: int
    limit: int
    frame: int


class Lines:
    """Turns requests into lines for `tc -batch`; but for putting back, tc gets no other lines.

    Raises:
        RefusedError: that is no name of an interface.
    """

    def __init__(self, interface: str) -> None:
        if _INTERFACE.fullmatch(interface) is None:
            raise RefusedError(f"{interface!a} is no interface's name")
        self._interface = interface
        self._uplinks: dict[int, Uplink] | None = None

    def of(self, request: bytes) -> list[str]:
        """Return what tc is told for a request.

        Raises:
            RefusedError: it is none, or not due: an unknown client's, or before our qdisc is there.
        """
        verb, numbers = parse(request)
        if verb == "root" and self._uplinks is None:
            self._uplinks = {}
            frames = f"default 0 direct_qlen {numbers[0]}"
            return [f"qdisc replace dev {self._interface} root handle {HANDLE} htb {frames}"]
        if verb == "root" or self._uplinks is None:
            raise RefusedError(f"request {request!a}: `root` comes first, and once")
        number = numbers[0]
        if (verb == "rate") != (number in self._uplinks):
            raise RefusedError(
                f"request {request!a}: want a known client for `rate`, else a new one"
            )
        if verb == "rate":
            return [self._change(self._uplinks[number]._replace(rate=numbers[1], burst=numbers[2]))]
        uplink = Uplink(verb, *numbers)
        if uplink.first_port % PORTS_EACH:
            raise RefusedError(f"first_port {uplink.first_port}: want a multiple of {PORTS_EACH}")
        self._uplinks[number] = uplink
        return list(self._add(uplink))

    def _add(self, uplink: Uplink) -> Iterator[str]:
        at, below = self._places(uplink)
        if uplink.leaf == "tbf":
            yield f"class add {at} htb rate {UNLIMITED_BPS}bit quantum {uplink.frame}"
            yield f"qdisc add {below} {_tbf(uplink)}"
        else:
            yield f"class add {at} {_htb(uplink)}"
            yield f"qdisc add {below} bfifo limit {uplink.limit}"
        ports = f"{uplink.first_port} {0x10000 - PORTS_EACH:#x}"
        for prio, (protocol, word) in enumerate((("ip", "ip"), ("ipv6", "ip6")), start=1):
            yield (
                f"filter add dev {self._interface} parent {HANDLE} protocol {protocol} "
                f"prio {prio} u32 match {word} protocol 6 0xff match {word} sport {ports} "
                f"flowid {HANDLE}{uplink.number:x}"
            )

    def _change(self, uplink: Uplink) -> str:
        at, below = self._places(uplink)
        if uplink.leaf == "tbf":
            return f"qdisc change {below} {_tbf(uplink)}"
        return f"class change {at} {_htb(uplink)}"

    def _places(self, uplink: Uplink) -> tuple[str, str]:
        own, where = f"{HANDLE}{uplink.number:x}", f"dev {self._interface} parent"
        at = f"{where} {HANDLE} classid {own}"
        return at, f"{where} {own} handle {MAJOR + uplink.number:x}:"


def _tbf(uplink: Uplink) -> str:
    return f"tbf rate {uplink.rate}bit burst {uplink.burst} limit {uplink.limit}"


def _htb(uplink: Uplink) -> str:
    rate, burst = uplink.rate, uplink.burst
    limits = f"rate {rate}bit ceil {rate}bit burst {burst} cburst {burst}"
    return f"htb {limits} quantum {uplink.frame}"


def _tc() -> str:
    if found := [path for path in _TC if os.path.exists(path)]:
        return found[0]
    raise RefusedError(f"there is no {_TC[0]} (Debian: iproute2)")


def _run(*options: str, lines: Sequence[str] = ()) -> str:
    done = subprocess.run(
        [_tc(), *options],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        cwd="/",
        timeout=_TC_S,
    )
    if done.returncode != 0:
        raise RefusedError(f"tc: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


class _Held:
    """An interface that this process alone shapes, and its own qdisc, which a file remembers."""

    def __init__(self, interface: str, path: str) -> None:
        self._interface, self._file = interface, _lock(path, interface)

    def _root(self) -> Qdisc:
        return root_qdisc(_run("qdisc", "show", "dev", self._interface)) or _DEFAULT

    def remember(self) -> None:
        """Write down the root qdisc, before another one takes its place."""
        before = self._root()
        if not before.restorable:
            raise RefusedError(
                f"{self._interface} has a qdisc that could not be put back afterwards: "
                f"`{before.kind} {before.handle} {before.options}`"
            )
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(before).encode(), 0)

    def put_back(self) -> None:
        """Put back the root qdisc that ours has replaced, if it has."""
        if not self._root().ours:
            return
        before = self._before()
        _run("-batch", "-", lines=before.commands(self._interface))
        after = self._root()
        if not before.default and after != before:
            had, got = (f"`{one.kind} {one.options}`" for one in (before, after))
            raise RefusedError(f"{self._interface} had {had} and got back {got}")

    def _before(self) -> Qdisc:
        with suppress(ValueError, TypeError):
            before = Qdisc(*json.loads(os.pread(self._file, 4096, 0)))
            if before.restorable:
                return before
        return _DEFAULT  # nothing (whole) was written down


def _folder() -> str:
    with suppress(FileExistsError):
        os.mkdir(_FOLDER, 0o700)
    found = os.lstat(_FOLDER)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise RefusedError(f"{_FOLDER} is not a folder of root's alone; remove it")
    return _FOLDER


def _lock(path: str, interface: str) -> int:
    deadline = time.monotonic() + _CLAIM_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False)):
                return file  # and not one that its last holder has just removed
        os.close(file)
        if time.monotonic() > deadline:
            raise RefusedError(f"another run shapes {interface} now; wait for its end, or stop it")
        time.sleep(0.02)


def _requests(tc: subprocess.Popen[bytes]) -> Iterator[bytes]:
    assert tc.stdout is not None, "opened as a pipe"
    pending, end = b"", tc.stdout.fileno()
    while True:
        ready, _, _ = select.select([0, end], [], [])
        if end in ready and not os.read(end, 4096):
            raise RefusedError("tc has ended")
        if 0 not in ready:
            continue
        data = os.read(0, 4096)
        *requests, pending = (pending + data).split(b"\n")
        yield from requests
        if not data:
            return  # what is pending was cut short
        if len(pending) > LONGEST:
            parse(pending)


def _serve(lines: Lines, held: _Held) -> None:
    # Changes of rate go to one tc that lives as long as this process, and sees nothing but lines
    # made here: from request to kernel 0.2 ms on two busy cores, where a tc for each took 5 ms.
    with subprocess.Popen(
        [_tc(), "-batch", "-"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,  # its end tells of tc's; it says what is wrong on our stderr
        env=_ENVIRONMENT,
        cwd="/",
    ) as tc:
        assert tc.stdin is not None, "opened as a pipe"
        for request in _requests(tc):
            told = lines.of(request)
            if request.startswith(b"rate "):
                tc.stdin.write("".join(f"{line}\n" for line in told).encode())
                continue
            if request.startswith(b"root "):
                held.remember()
            _run("-batch", "-", lines=told)
            os.write(1, b"ok\n")
    if tc.returncode != 0:
        raise RefusedError("tc has ended")


def shape(interface: str) -> None:
    """Shape an interface by what standard input says, until it ends.

    Raises:
        RefusedError: a request is none, or tc fails; all is put back.
        OSError: whoever asked is gone, or the system lacks something.
    """
    lines = Lines(interface)
    if interface not in (name for _, name in socket.if_nameindex()):
        raise RefusedError(f"there is no interface {interface}")
    namespace = os.stat("/proc/self/ns/net").st_ino
    path = f"{_folder()}/{namespace}-{interface}"
    held = _Held(interface, path)
    held.put_back()
    try:
        os.write(1, f"{NAME} {VERSION}\n".encode())
        _serve(lines, held)
    finally:
        held.put_back()
        os.unlink(path)


def main(arguments: Sequence[str]) -> int:
    """Do it; return the exit code."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        return 2  # or the lock file would become one of them
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its input, and puts back
    try:
        if len(arguments) != 1:
            raise RefusedError(f"usage: {NAME} INTERFACE")
        shape(arguments[0])
    except (RefusedError, OSError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
