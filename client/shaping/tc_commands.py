"""The tc commands that shape clients' uplinks, as lines of a `tc -batch`; nothing is executed here.

The root qdisc of an interface becomes an htb of our own handle. It has one class a client, chosen
by the TCP source ports that the client's connection leaves from; whatever else leaves by the
interface, SSH first of all, matches no filter, belongs to no class, and is passed at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from jellyfish.errors import ConfigError
from jellyfish.trace import Trace

MAJOR = 0x4A46  # "JF": by this handle a later run knows what a dead one left
HANDLE = f"{MAJOR:x}:"
PORTS_EACH = 16  # a block of so many source ports is one client's; a power of two, as masks are
LEAVES = ("tbf", "htb")
FLOOR_BPS = 1000.0  # tc knows no rate of 0; a packet takes 12 s at this one

_ETHERNET = 14
_HEADERS = {4: 20 + 32, 6: 40 + 32}  # IP, and TCP with its timestamps
_LATE_S = 0.00025  # by so much a timer may be late without capacity being lost
_UNLIMITED_BPS = 100e9
# Root qdiscs that somebody has set and that can be put back from what tc shows of them.
_RESTORABLE = ("pfifo", "bfifo", "pfifo_fast", "tbf", "codel", "fq_codel", "sfq")


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A root qdisc, as `tc qdisc show` tells it.

    Args:
        kind: for example fq_codel.
        handle: for example `8001:`; `0:` is one that the kernel chose itself.
        options: the rest.
    """

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
        return self.default or self.kind in _RESTORABLE

    def commands(self, interface: str) -> list[str]:
        """Return what puts it back in the place of another one."""
        if self.default:
            return [f"qdisc delete dev {interface} root"]
        options = "" if self.kind == "pfifo_fast" else self.options
        # What tc shows, it does not always understand: 100p for packets, 10sec for seconds.
        options = re.sub(r"\b(\d+)(?:p|sec)(?=\s|$)", r"\1", options)
        command = f"qdisc replace dev {interface} root handle {self.handle} {self.kind} {options}"
        return [f"qdisc delete dev {interface} root", command.strip()]


def root_qdisc(shown: str) -> Qdisc | None:
    """Return the root qdisc in what `tc qdisc show dev INTERFACE` prints, or None."""
    for line in shown.splitlines():
        found = re.match(r"qdisc (\S+) ([0-9a-f]*:) (?:dev \S+ )?root(?: refcnt \d+)?(.*)$", line)
        if found:
            return Qdisc(found[1], found[2], found[3].strip())
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """One client's class.

    Args:
        number: 1 for the first; it numbers class and leaf.
        first_port: of the block of PORTS_EACH source ports that the client's connection uses.
        trace: the rate over time of what TCP carries.

    Raises:
        ConfigError: the ports are no such block.
    """

    number: int
    first_port: int
    trace: Trace

    def __post_init__(self) -> None:
        if self.first_port % PORTS_EACH or not 1024 <= self.first_port <= 65536 - PORTS_EACH:
            raise ConfigError(
                f"first source port {self.first_port}: want a multiple of {PORTS_EACH} "
                f"between 1024 and {65536 - PORTS_EACH}"
            )

    @property
    def classid(self) -> str:
        """The htb class."""
        return f"{HANDLE}{self.number:x}"

    @property
    def leaf(self) -> str:
        """The handle of the qdisc below the class."""
        return f"{MAJOR + self.number:x}:"


class Commands:
    """Writes the commands for one interface.

    A trace says what TCP carries; tc counts whole Ethernet frames. So tc is told the rate at
    which full frames carry the trace's. The burst is one frame, and what passes while a timer is
    a quarter of a millisecond late: with less, capacity is lost (the published 1540 bytes cost
    7 % at 40 Mbit/s); with more, frames arrive too early.

    Args:
        interface: its name.
        mtu: its MTU in bytes.
        family: 4 or 6, the IP version of the way to the server.
        leaf: "tbf", a token bucket below each htb class, or "htb", the class alone.
        burst_bytes: a fixed burst; None to reckon it from the rate.
        latency_s: how long the fastest rate takes to empty a full queue.
        queue_frames: how many frames of others may wait for the interface.

    Raises:
        ConfigError: a burst that is smaller than a frame, or no such leaf.
    """

    def __init__(
        self,
        interface: str,
        mtu: int,
        *,
        family: int = 4,
        leaf: str = "tbf",
        burst_bytes: int | None = None,
        latency_s: float = 10.0,
        queue_frames: int = 1000,
    ) -> None:
        if leaf not in LEAVES:
            raise ConfigError(f"tc leaf {leaf!r}: want {' or '.join(LEAVES)}")
        self._interface, self._leaf = interface, leaf
        self._frame = mtu + _ETHERNET
        self._share = (mtu - _HEADERS[family]) / self._frame
        if burst_bytes is not None and burst_bytes < self._frame:
            raise ConfigError(
                f"tc burst_bytes {burst_bytes}: nothing would pass; a frame of {interface} "
                f"has up to {self._frame} bytes"
            )
        self._burst_bytes, self._latency_s = burst_bytes, latency_s
        self._root = f"htb default 0 direct_qlen {queue_frames}"

    def wire_bps(self, mbps: float) -> float:
        """Return the rate in bit/s of frames that carry `mbps` Mbit/s, never 0."""
        return max(mbps * 1e6 / self._share, FLOOR_BPS)

    def frame_s(self, mbps: float) -> float:
        """Return how long one full frame takes at that rate."""
        return self._frame * 8 / self.wire_bps(mbps)

    def set_up(self, uplinks: Sequence[Uplink]) -> list[str]:
        """Return what shapes every uplink at the first rate of its trace."""
        lines = [f"qdisc replace dev {self._interface} root handle {HANDLE} {self._root}"]
        for uplink in uplinks:
            lines += self._class(uplink)
        return lines

    def _class(self, uplink: Uplink) -> Iterator[str]:
        rate = uplink.trace.mbps[0]
        parent = f"dev {self._interface} parent {uplink.classid} handle {uplink.leaf}"
        if self._leaf == "tbf":
            limits = f"rate {_UNLIMITED_BPS:.0f}bit quantum {self._frame}"
            yield f"class add {self._at(uplink)} htb {limits}"
            yield f"qdisc add {parent} {self._tbf(uplink, rate)}"
        else:
            yield f"class add {self._at(uplink)} {self._htb(rate)}"
            yield f"qdisc add {parent} bfifo limit {self._limit(uplink)}"
        yield from self._filters(uplink)

    def _filters(self, uplink: Uplink) -> Iterator[str]:
        ports = f"{uplink.first_port} {0x10000 - PORTS_EACH:#x}"
        for prio, (protocol, word) in enumerate((("ip", "ip"), ("ipv6", "ip6")), start=1):
            yield (
                f"filter add dev {self._interface} parent {HANDLE} protocol {protocol} "
                f"prio {prio} u32 match {word} protocol 6 0xff match {word} sport {ports} "
                f"flowid {uplink.classid}"
            )

    def change(self, uplink: Uplink, mbps: float) -> str:
        """Return what gives an uplink another rate."""
        if self._leaf == "tbf":
            where = f"dev {self._interface} parent {uplink.classid} handle {uplink.leaf}"
            return f"qdisc change {where} {self._tbf(uplink, mbps)}"
        return f"class change {self._at(uplink)} {self._htb(mbps)}"

    def _at(self, uplink: Uplink) -> str:
        return f"dev {self._interface} parent {HANDLE} classid {uplink.classid}"

    def _tbf(self, uplink: Uplink, mbps: float) -> str:
        bps = self.wire_bps(mbps)
        return f"tbf rate {bps:.0f}bit burst {self._burst(bps)} limit {self._limit(uplink)}"

    def _htb(self, mbps: float) -> str:
        bps = self.wire_bps(mbps)
        burst = self._burst(bps)
        limits = f"rate {bps:.0f}bit ceil {bps:.0f}bit burst {burst} cburst {burst}"
        return f"htb {limits} quantum {self._frame}"

    def _burst(self, bps: float) -> int:
        return self._burst_bytes or self._frame + 32 + int(bps / 8 * _LATE_S)

    def _limit(self, uplink: Uplink) -> int:
        fastest = self.wire_bps(max(uplink.trace.mbps))
        return int(fastest / 8 * self._latency_s) + 2 * self._burst(fastest)


class Schedule:
    """When the rate of a trace changes, again and again; a cursor that only moves on."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._steps = len(trace.mbps)
        self._k = 0
        self._changes = len(set(trace.mbps)) > 1

    @property
    def due_s(self) -> float:
        """When the next change is due, in s after the trace's start; infinity for never."""
        return self._next() * self._trace.step_s if self._changes else inf

    def take(self, t: float) -> float | None:
        """Move on to `t` seconds after the start; return the rate from then on, if it changes."""
        before = self._rate(self._k)
        while self.due_s <= t:
            self._k = self._next()
        now = self._rate(self._k)
        return None if now == before else now

    def _next(self) -> int:
        k = self._k + 1
        while self._rate(k) == self._rate(self._k):
            k += 1
        return k

    def _rate(self, k: int) -> float:
        return self._trace.mbps[k % self._steps]
