"""The client's share of input-size adaptation: stepping down on its own (RTSS 2022, section V)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jellyfish.errors import ConfigError

Backoff = Callable[[int, Sequence[int], Sequence[float], float, float], int]
"""(told px, sizes, bytes per size, own kbit/s, fps) -> px to send."""


def best(
    told_px: int, input_px: Sequence[int], frame_bytes: Sequence[float], kbps: float, fps: float
) -> int:
    """Return the largest size, none above `told_px`, that the client's bandwidth carries at `fps`.

    *Best back-off*: the server knows the load, the client the present bandwidth; each may only
    lower the size. The smallest size is sent even where nothing is carried.

    Args:
        told_px: the size that the server named last.
        input_px: (M,) the zoo's sizes, ascending.
        frame_bytes: (M,) what a frame of each size weighs.
        kbps: the client's own estimate.
        fps: its frame rate.
    """
    for px, weight in zip(reversed(input_px), reversed(frame_bytes), strict=True):
        if px <= told_px and kbps * 1000 > weight * 8 * fps:
            return px
    return input_px[0]


def as_told(
    told_px: int, input_px: Sequence[int], frame_bytes: Sequence[float], kbps: float, fps: float
) -> int:
    """Return `told_px`: no back-off on the client."""
    return told_px


BACKOFFS: dict[str, Backoff] = {"best": best, "none": as_told}


def backoff(name: str) -> Backoff:
    """Return the named policy.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return BACKOFFS[name]
    except KeyError:
        names = ", ".join(sorted(BACKOFFS))
        raise ConfigError(f"no back-off is called {name!r}; there are {names}") from None
