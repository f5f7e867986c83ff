"""A client's uplink as it sees it: how fast, what is still on its way, what that means for more.

The link is first in, first out. Acknowledgements tell when it was done with each frame; all times
are those of acknowledgements on the client's clock, so that the way back is in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jellyfish.bandwidth import INITIAL_KBPS, ClientBandwidth, clamped
from jellyfish.budget import BITS_PER_BYTE
from jellyfish.errors import ConfigError

_WIRE_SHARE = 0.9  # of the configured wire latency, as in the published estimate
_MIN_LINK_MS = 0.05  # a clock's grain: a faster link cannot be told apart
_OVERDUE_MS = 2.0  # an acknowledgement this late says nothing yet
_OVERDUE_SHARE = 0.5  # an overdue frame is expected to take so much longer than it has already
_TRUST_IN_RISE = 0.5  # a fall is believed at once
_LOOK_S = 1.0  # changes are told from second to second: frames in between see the same network
_STEADY = 0.9  # weight of the past in the mean change


@dataclass(frozen=True, slots=True)
class _Sent:
    frame: int
    size: int  # bytes
    px: int
    at_s: float


class Estimator(Protocol):
    """Turns acknowledgements into a bandwidth."""

    kbps: float

    def take(self, sent: _Sent, network_ms: float, link_ms: float) -> None:
        """Take an acknowledgement: network time since sending, and time on the link alone."""

    def at_most(self, kbps: float) -> float:
        """Return the estimate, given that a late acknowledgement proves no more than `kbps`."""

    @property
    def change(self) -> float:
        """Mean relative change of late, from one second to the next."""


class Filtered:
    """The published estimate: the error-based filter over network times."""

    change = 0.0

    def __init__(self, wire_ms: float) -> None:
        self._bandwidth = ClientBandwidth(wire_ms)
        self.kbps = self._bandwidth.kbps

    def take(self, sent: _Sent, network_ms: float, link_ms: float) -> None:
        """Take the network time, in which the wait for the frames before it counts."""
        self._bandwidth.acknowledged(sent.size, sent.px, network_ms, 0.0)
        self.kbps = self._bandwidth.kbps

    def at_most(self, kbps: float) -> float:
        """Return the estimate: nothing but acknowledgements moves it."""
        return self.kbps


class Quick:
    """Ours: the latest frame's rate on the link; falls are believed at once, rises by halves."""

    def __init__(self, wire_ms: float) -> None:
        self.kbps = INITIAL_KBPS
        self.change = 0.0
        self._known = False
        self._seen: tuple[float, float] | None = None  # when, and what the estimate was

    def take(self, sent: _Sent, network_ms: float, link_ms: float) -> None:
        """Take the time on the link alone."""
        kbps = clamped(sent.size * BITS_PER_BYTE / max(link_ms, _MIN_LINK_MS))
        if not self._known:
            self.kbps, self._known = kbps, True
            return
        self.kbps += (kbps - self.kbps) * (_TRUST_IN_RISE if kbps > self.kbps else 1.0)
        self._look(sent.at_s)

    def _look(self, now_s: float) -> None:
        if self._seen is None:
            self._seen = now_s, self.kbps
        elif now_s - self._seen[0] >= _LOOK_S:
            before = self._seen[1]
            change = abs(self.kbps - before) / max(self.kbps, before)
            self.change += (1 - _STEADY) * (change - self.change)
            self._seen = now_s, self.kbps

    def at_most(self, kbps: float) -> float:
        """Return the lower of the two."""
        return min(self.kbps, kbps)


ESTIMATORS: dict[str, Callable[[float], Estimator]] = {"filter": Filtered, "quick": Quick}


class Uplink:
    """One client's uplink.

    Args:
        estimator: which of ESTIMATORS.
        wire_ms: configured latency of the wire, one way.

    Raises:
        ConfigError: there is no such estimator.
    """

    def __init__(self, estimator: str, wire_ms: float) -> None:
        if estimator not in ESTIMATORS:
            raise ConfigError(f"no estimator {estimator!r}; there are: {', '.join(ESTIMATORS)}")
        self._estimator = ESTIMATORS[estimator](wire_ms)
        self._wire_s = 2 * _WIRE_SHARE * wire_ms / 1000
        self._unacked: deque[_Sent] = deque()
        self._free_s = float("-inf")

    def sent(self, frame: int, size: int, px: int, now_s: float) -> None:
        """Note that a frame of `size` bytes went on its way."""
        self._unacked.append(_Sent(frame, size, px, now_s))

    def acknowledged(self, frame: int, now_s: float, server_ms: float) -> None:
        """Take an acknowledgement that the server said `server_ms` after it had the frame.

        One for a frame that is not on its way is ignored, and so are times that make no sense.
        """
        if not any(sent.frame == frame for sent in self._unacked):
            return
        while (sent := self._unacked.popleft()).frame != frame:
            pass  # the link keeps the order: what was sent before is there, too
        if not 0 <= server_ms < float("inf"):
            return
        arrived_s = now_s - server_ms / 1000
        link_ms = (arrived_s - max(self._free_s, sent.at_s + self._wire_s)) * 1000
        self._free_s = max(self._free_s, arrived_s)
        self._estimator.take(sent, (arrived_s - sent.at_s) * 1000, link_ms)

    @property
    def busy(self) -> bool:
        """Whether a frame is on its way."""
        return bool(self._unacked)

    def kbps(self, now_s: float) -> float:
        """Return the estimate; finite and positive, whatever was measured."""
        kbps = self._estimator.kbps
        if not self._unacked:
            return kbps
        first = self._unacked[0]
        bits = first.size * BITS_PER_BYTE
        under_way_ms = (now_s - max(self._free_s, first.at_s + self._wire_s)) * 1000 - _OVERDUE_MS
        if under_way_ms * kbps <= bits:
            return kbps
        return self._estimator.at_most(clamped(bits / under_way_ms / (1 + _OVERDUE_SHARE)))

    def ahead_ms(self, now_s: float, kbps: float) -> float:
        """Return what a frame sent now would need at `kbps`, beside the time for its own bits."""
        free_s = self._free_s
        for sent in self._unacked:
            begin_s = max(free_s, sent.at_s + self._wire_s)
            free_s = begin_s + sent.size * BITS_PER_BYTE / kbps / 1000
            if free_s < now_s:  # overdue
                free_s = now_s + _OVERDUE_SHARE * (now_s - begin_s)
        return (max(free_s, now_s + self._wire_s) - now_s) * 1000

    def cautious_kbps(self, now_s: float, deviations: float) -> float:
        """Return the estimate less so many mean changes of late."""
        return self.kbps(now_s) / (1 + deviations * self._estimator.change)


class ServerTime:
    """What the server takes for a frame, from its receipt to its answer.

    Args:
        fps: answers per second; one second counts.
    """

    def __init__(self, fps: float) -> None:
        self._recent: deque[float] = deque(maxlen=max(4, round(fps)))
        self._sorted: list[float] | None = []

    def took(self, server_ms: float) -> None:
        """Note what an answer in time took."""
        self._recent.append(server_ms)
        self._sorted = None

    def quantile(self, q: float) -> float | None:
        """Return the quantile `q`, 0 to 1; None where nothing is known yet."""
        if self._sorted is None:
            self._sorted = sorted(self._recent)
        if not self._sorted:
            return None
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]
