"""What shapes clients' uplinks, as requests to `client.shaping.tc_root`; nothing is executed here.

The root qdisc of an interface becomes an htb of our own handle. It has one class a client, chosen
by the TCP source ports that the client's connection leaves from; whatever else leaves by the
interface, SSH first of all, matches no filter, belongs to no class, and is passed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from client.shaping.tc_root import HANDLE, LEAVES, PORTS_EACH
from jellyfish.errors import ConfigError
from jellyfish.trace import Trace

FLOOR_BPS = 1000.0  # tc knows no rate of 0; a packet takes 12 s at this one

_ETHERNET = 14
_HEADERS = {4: 20 + 32, 6: 40 + 32}  # IP, and TCP with its timestamps
_LATE_S = 0.00025  # by so much a timer may be late without capacity being lost


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


class Commands:
    """Writes the requests for one interface.

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
        self._leaf = leaf
        self._frame = mtu + _ETHERNET
        self._share = (mtu - _HEADERS[family]) / self._frame
        if burst_bytes is not None and burst_bytes < self._frame:
            raise ConfigError(
                f"tc burst_bytes {burst_bytes}: nothing would pass; a frame of {interface} "
                f"has up to {self._frame} bytes"
            )
        self._burst_bytes, self._latency_s = burst_bytes, latency_s
        self._queue_frames = queue_frames

    def wire_bps(self, mbps: float) -> float:
        """Return the rate in bit/s of frames that carry `mbps` Mbit/s, never 0."""
        return max(mbps * 1e6 / self._share, FLOOR_BPS)

    def frame_s(self, mbps: float) -> float:
        """Return how long one full frame takes at that rate."""
        return self._frame * 8 / self.wire_bps(mbps)

    def set_up(self, uplinks: Sequence[Uplink]) -> list[str]:
        """Return what shapes every uplink at the first rate of its trace."""
        return [f"root {self._queue_frames}", *map(self._add, uplinks)]

    def _add(self, uplink: Uplink) -> str:
        bps = self.wire_bps(uplink.trace.mbps[0])
        shape = f"{bps:.0f} {self._burst(bps)} {self._limit(uplink)} {self._frame}"
        return f"{self._leaf} {uplink.number} {uplink.first_port} {shape}"

    def change(self, uplink: Uplink, mbps: float) -> str:
        """Return what gives an uplink another rate."""
        bps = self.wire_bps(mbps)
        return f"rate {uplink.number} {bps:.0f} {self._burst(bps)}"

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
