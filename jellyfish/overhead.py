"""The server's own time per frame: what the hand-over to a GPU's worker and back takes.

RTSS 2022, section V: a running mean, and a margin. Here one estimate a GPU, which forgets.
"""

from __future__ import annotations

from math import inf

MARGIN_MS = 2.0  # of the server's overhead, beside dispatch there and back
FIRST_MS = 2.0  # both ways; the published start value is 1 ms each
LIMIT_SHARE = 0.25  # of the shortest SLO: more is an incident, not what to plan with
FRESH_S = 0.5  # without a new value for longer, an estimate decays
HALF_LIFE_S = 0.5


class Overhead:
    """Dispatch time of one GPU as a running mean, with a tail, that decays when not renewed.

    A value above `limit_ms` counts as that: one pause of a worker must not outweigh all that was
    measured before and after it.

    Args:
        weight: of the newest value.
        tail: mean deviations added to the mean: what is late now and then is late then.
    """

    def __init__(self, weight: float, tail: float = 0.0) -> None:
        self._weight, self._tail = weight, tail
        self._mean_ms = FIRST_MS
        self._deviation_ms = 0.0
        self._renewed_s = -inf
        self.limit_ms = inf

    def dispatched(self, dispatch_ms: float, now_s: float) -> None:
        """Take in the dispatch time of a batch that ended at `now_s`."""
        self._decay(now_s)
        self._renewed_s = now_s
        error_ms = min(dispatch_ms, self.limit_ms) - self._mean_ms
        self._mean_ms += self._weight * error_ms
        self._deviation_ms += self._weight * (abs(error_ms) - self._deviation_ms)

    def dispatch_ms(self, now_s: float) -> float:
        """Return dispatch there and back, as expected at `now_s`."""
        kept = self._kept(now_s)
        mean_ms = FIRST_MS + kept * (self._mean_ms - FIRST_MS)
        return min(self.limit_ms, mean_ms + self._tail * kept * self._deviation_ms)

    def ms(self, now_s: float) -> float:
        """Return what the scheduler reckons with."""
        return self.dispatch_ms(now_s) + MARGIN_MS

    def raised(self, now_s: float) -> bool:
        """Whether the estimate is above where it starts, so that it may keep clients unmapped."""
        return self.dispatch_ms(now_s) > FIRST_MS

    def _kept(self, now_s: float) -> float:
        idle_s = now_s - self._renewed_s - FRESH_S
        return 1.0 if idle_s <= 0 else 0.5 ** min(idle_s / HALF_LIFE_S, 100.0)

    def _decay(self, now_s: float) -> None:
        kept = self._kept(now_s)
        if kept < 1:
            self._mean_ms = FIRST_MS + kept * (self._mean_ms - FIRST_MS)
            self._deviation_ms *= kept
