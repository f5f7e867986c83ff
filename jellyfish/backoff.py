"""The client's share of input-size adaptation: the size of the next frame (RTSS 2022, section V).

Each way of choosing is a function from what the client knows to a size in px.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jellyfish.budget import BITS_PER_BYTE
from jellyfish.errors import ConfigError

FIXED_PX = 352
"""The published fixed size."""

SPARE_MS = 3.0
"""What a client that looks ahead keeps for what nobody foresees: how long its batch takes."""

NETWORK_SHARE = 0.25
"""Of the SLO, for the network, where it has a fixed share."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a client knows when it picks a size.

    Args:
        told_px: the size that the server named last.
        input_px: (M,) the zoo's sizes, ascending.
        frame_bytes: (M,) what a frame of each size weighs.
        kbps: the client's own estimate of its bandwidth.
        fps: its frame rate.
        slo_ms: its SLO.
        ahead_ms: what a frame needs on the network beside its own bits: the wire both ways, and
            its wait for the frames before it that are still on their way.
        device_ms: from its capture to its sending.
        server_ms: what the server is expected to take for it.
    """

    told_px: int
    input_px: Sequence[int]
    frame_bytes: Sequence[float]
    kbps: float
    fps: float
    slo_ms: float
    ahead_ms: float = 0.0
    device_ms: float = 0.0
    server_ms: float = 0.0

    def carries(self, bits: float) -> bool:
        """Whether the bandwidth carries frames of so many bits at the client's rate."""
        return self.kbps * 1000 > bits * self.fps

    def in_time(self, bits: float, server_ms: float) -> bool:
        """Whether the answer to a frame of so many bits is back in time."""
        network_ms = self.ahead_ms + bits / self.kbps
        return self.device_ms + network_ms + server_ms <= self.slo_ms


Backoff = Callable[[Outlook], int]


def _largest(seen: Outlook, limit_px: int, fits: Callable[[float], bool]) -> int:
    """Return the largest size, none above `limit_px`, whose bits fit; the smallest if none does."""
    for px, weight in zip(reversed(seen.input_px), reversed(seen.frame_bytes), strict=True):
        if px <= limit_px and fits(weight * BITS_PER_BYTE):
            return px
    return seen.input_px[0]


def best(seen: Outlook) -> int:
    """*Best back-off*: the largest size, none above the told one, that the bandwidth carries.

    The server knows the load, the client the present bandwidth; each may only lower the size. The
    smallest size is sent even where nothing is carried.
    """
    return _largest(seen, seen.told_px, seen.carries)


def aggressive(seen: Outlook) -> int:
    """*Aggressive back-off*: the told size while it is carried, or else the smallest at once."""
    told = nearest_px(seen.input_px, seen.told_px)
    return told if _largest(seen, told, seen.carries) == told else seen.input_px[0]


def independent(seen: Outlook) -> int:
    """*Server-independent*: the largest size that the bandwidth carries, whatever was told."""
    return _largest(seen, seen.input_px[-1], seen.carries)


def fixed(seen: Outlook) -> int:
    """*Fixed size*: the published 352 px whatever happens; the next below where there is none."""
    return nearest_px(seen.input_px, FIXED_PX)


def slo_share(seen: Outlook) -> int:
    """*SLO-aware client*: the network may take a quarter of the SLO, whatever the server takes."""
    limit_ms = NETWORK_SHARE * seen.slo_ms

    def fits(bits: float) -> bool:
        return seen.carries(bits) and bits / seen.kbps <= limit_ms

    return _largest(seen, seen.told_px, fits)


def in_time(seen: Outlook) -> int:
    """Return the largest size that is carried and will arrive in time behind what is in flight.

    Ours. A frame that queues behind others must be smaller than the bandwidth alone would allow.
    """

    def fits(bits: float) -> bool:
        return seen.carries(bits) and seen.in_time(bits, seen.server_ms + SPARE_MS)

    return _largest(seen, seen.told_px, fits)


def as_told(seen: Outlook) -> int:
    """Return the told size: no back-off on the client."""
    return seen.told_px


def hopeless(seen: Outlook, server_ms: float) -> bool:
    """Tell whether not even the smallest frame's answer is back in time from such a server."""
    return not seen.in_time(seen.frame_bytes[0] * BITS_PER_BYTE, server_ms)


def nearest_px(input_px: Sequence[int], px: int) -> int:
    """Return the largest size that is no larger than `px`; the smallest where all are."""
    return input_px[max(0, bisect_right(input_px, px) - 1)]


BACKOFFS: dict[str, Backoff] = {
    "best": best,
    "in_time": in_time,
    "aggressive": aggressive,
    "independent": independent,
    "fixed": fixed,
    "slo_share": slo_share,
    "none": as_told,
}


def backoff(name: str) -> Backoff:
    """Return the named way of choosing a size.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return BACKOFFS[name]
    except KeyError:
        names = ", ".join(sorted(BACKOFFS))
        raise ConfigError(f"no back-off is called {name!r}; there are {names}") from None
