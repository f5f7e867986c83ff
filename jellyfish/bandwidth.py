"""Bandwidth as a client and the server see it (RTSS 2022, section V; Kim & Noble, MobiCom 2001)."""

from __future__ import annotations

from collections import deque
from math import isfinite

INITIAL_KBPS = 100_000.0
"""What is assumed before anything was measured."""

MIN_KBPS, MAX_KBPS = 0.001, 1e9
"""No estimate leaves this range: its inverse, and a mean of inverses, stay finite."""

_WIRE_SHARE = 0.9  # of the configured wire latency, so that a small error in it does no harm
_MIN_NETWORK_MS = 0.01  # a clock's grain: a faster link cannot be told apart


def usable(kbps: float) -> bool:
    """Tell whether `kbps` can be a bandwidth: finite and positive."""
    return isfinite(kbps) and kbps > 0


def clamped(kbps: float) -> float:
    """Return `kbps` within [MIN_KBPS, MAX_KBPS]."""
    return min(MAX_KBPS, max(MIN_KBPS, kbps))


class ErrorBasedFilter:
    """Smooths a series: steady while it predicts well, quick when it errs more than of late.

    Args:
        gamma: weight of the past in the running error.
        history: number of running errors whose maximum the present one is compared with.
    """

    def __init__(self, gamma: float = 0.6, history: int = 10) -> None:
        self._gamma = gamma
        self._errors: deque[float] = deque(maxlen=history)
        self._estimate: float | None = None

    def update(self, observation: float) -> float:
        """Take one observation; return the new estimate."""
        if self._estimate is None:
            self._estimate = observation
            return observation
        error = abs(self._estimate - observation)
        if self._errors:
            error = self._gamma * self._errors[-1] + (1 - self._gamma) * error
        self._errors.append(error)
        worst = max(self._errors)
        trust = 1 - error / worst if worst > 0 else 1.0
        self._estimate = trust * self._estimate + (1 - trust) * observation
        return self._estimate

    def reset(self) -> None:
        """Forget everything."""
        self._errors.clear()
        self._estimate = None


class ClientBandwidth:
    """A client's uplink, from acknowledgements: frame bits over smoothed network time.

    The filter starts anew when the frame size changes, since it smooths times, not rates.

    Args:
        wire_ms: configured latency of the wire, one way.
        initial_kbps: the estimate before the first acknowledgement.
    """

    def __init__(self, wire_ms: float, initial_kbps: float = INITIAL_KBPS) -> None:
        self._wire_ms = wire_ms
        self._kbps = clamped(initial_kbps)
        self._filter = ErrorBasedFilter()
        self._px: int | None = None

    @property
    def kbps(self) -> float:
        """The present estimate; finite and positive, whatever was measured."""
        return self._kbps

    def acknowledged(
        self, frame_bytes: int, px: int, round_trip_ms: float, server_ms: float
    ) -> None:
        """Take one acknowledgement; one that makes no sense is ignored.

        Args:
            frame_bytes: bytes of the acknowledged frame.
            px: its size.
            round_trip_ms: from sending it to receiving the acknowledgement, on this clock.
            server_ms: from its receipt to the acknowledgement, on the server's clock.
        """
        network_ms = round_trip_ms - server_ms
        if frame_bytes <= 0 or not isfinite(network_ms):
            return
        if px != self._px:
            self._px = px
            self._filter.reset()
        carried_ms = self._filter.update(max(network_ms, 0.0)) - _WIRE_SHARE * self._wire_ms
        self._kbps = clamped(frame_bytes * 8 / max(carried_ms, _MIN_NETWORK_MS))


class ServerBandwidth:
    """A client's uplink as the server plans with it: harmonic mean of the latest reports.

    The initial value counts as the first report. Reports that are no bandwidth are ignored.

    Args:
        fps: frames, and so reports, per second.
        initial_kbps: the estimate before the first report.
        window_s: for how long a report counts; one second as published.
    """

    def __init__(
        self, fps: float, initial_kbps: float = INITIAL_KBPS, window_s: float = 1.0
    ) -> None:
        reports = max(1, round(fps * window_s))
        self._inverse: deque[float] = deque([1 / clamped(initial_kbps)], maxlen=reports)

    def report(self, kbps: float) -> None:
        """Take the estimate that came with a frame."""
        if usable(kbps):
            self._inverse.append(1 / clamped(kbps))

    @property
    def kbps(self) -> float:
        """The harmonic mean; finite and positive."""
        return len(self._inverse) / sum(self._inverse)
