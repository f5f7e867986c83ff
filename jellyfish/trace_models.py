"""Bandwidth traces made by a seeded model: like the published WiFi and LTE ones, and as many.

A Gaussian process in steps of 1 s gives the order in time, the published distribution the values:
the lowest value of the process becomes the trace's minimum, the highest its maximum. So every
trace has the published distribution, whatever its seed, and about the published autocorrelation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, sqrt
from random import Random
from types import MappingProxyType

from jellyfish.errors import ConfigError

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
STEP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TraceModel:
    """Distribution and memory of a link's rate.

    Args:
        mbps: rates below which lie `SHARES` of all, ascending.
        parts: the process as a sum of parts: share of the variance, and after how many seconds
            the autocorrelation has fallen to 1/e (0 for noise).
    """

    mbps: tuple[float, ...]
    parts: tuple[tuple[float, float], ...]

    def rates(self, seconds: int, seed: int) -> list[float]:
        """Return one rate in Mbit/s a second; the same for the same seed, on every machine."""
        process = self._process(seconds, Random(seed))
        ranks = {i: rank for rank, i in enumerate(sorted(range(seconds), key=process.__getitem__))}
        return [round(self._quantile(ranks[i] / max(seconds - 1, 1)), 3) for i in range(seconds)]

    def _process(self, seconds: int, random: Random) -> list[float]:
        total = [0.0] * seconds
        for share, memory_s in self.parts:
            kept = exp(-STEP_S / memory_s) if memory_s else 0.0
            state = random.gauss(0, 1)
            for i in range(seconds):
                total[i] += sqrt(share) * state
                state = kept * state + sqrt(1 - kept * kept) * random.gauss(0, 1)
        return total

    def _quantile(self, share: float) -> float:
        i = min(bisect_right(SHARES, share), len(SHARES) - 1) - 1
        within = (share - SHARES[i]) / (SHARES[i + 1] - SHARES[i])
        return self.mbps[i] + within * (self.mbps[i + 1] - self.mbps[i])


# Per second, of the traces that the paper used: minimum, p5, p25, p50, p75, p95, maximum.
MODELS: Mapping[str, TraceModel] = MappingProxyType(
    {
        "wifi": TraceModel(
            mbps=(12.9, 18.7, 43.0, 53.0, 62.6, 76.9, 90.8),
            parts=((0.1, 0.0), (0.6, 3.0), (0.3, 30.0)),
        ),
        "lte": TraceModel(
            mbps=(2.9, 7.3, 11.7, 14.7, 18.1, 25.0, 26.3),
            parts=((0.25, 0.0), (0.75, 14.0)),
        ),
    }
)


def trace_model(name: str) -> TraceModel:
    """Return the model called `name`.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    if name not in MODELS:
        raise ConfigError(f"no trace model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]
