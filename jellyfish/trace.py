"""A bandwidth trace: the rate of a link over time, looping, as a piecewise constant function."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import isfinite

from jellyfish.errors import ConfigError


@dataclass(frozen=True)
class Trace:
    """`mbps[i]` Mbit/s during [i * step_s, (i + 1) * step_s), then from the start again.

    Plain Python on purpose: the relay and the simulated link ask it once a message, and the
    relay's process should start without numpy.

    Raises:
        ConfigError: no steps, a negative or non-finite rate, no positive rate, step_s <= 0.
    """

    name: str
    mbps: tuple[float, ...]
    step_s: float
    _bits: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.mbps:
            raise ConfigError(f"trace {self.name}: it has no steps")
        if not (isfinite(self.step_s) and self.step_s > 0):
            raise ConfigError(f"trace {self.name}: step_s must be positive, not {self.step_s}")
        for i, rate in enumerate(self.mbps):
            if not isfinite(rate) or rate < 0:
                raise ConfigError(f"trace {self.name}: step {i} has rate {rate}; want >= 0 Mbit/s")
        if not any(self.mbps):
            raise ConfigError(f"trace {self.name}: every rate is 0; nothing would ever arrive")
        steps = (rate * 1e6 * self.step_s for rate in self.mbps)
        object.__setattr__(self, "_bits", (0.0, *accumulate(steps)))

    @property
    def period_s(self) -> float:
        """Seconds after which the trace starts again."""
        return len(self.mbps) * self.step_s

    def rate_kbps(self, t: float) -> float:
        """Return the rate at `t` seconds, in kbit/s (1 kbit = 1000 bits)."""
        return self.mbps[int(t // self.step_s) % len(self.mbps)] * 1000.0

    def bits_until(self, t: float) -> float:
        """Return the bits that the link can carry in [0, t]."""
        periods, rest = divmod(t, self.period_s)
        i = min(int(rest // self.step_s), len(self.mbps) - 1)
        partial = (rest - i * self.step_s) * self.mbps[i] * 1e6
        return periods * self._bits[-1] + self._bits[i] + partial

    def departure(self, t: float, bits: float) -> float:
        """Return when the last of `bits` has left a link that is free from `t` seconds on.

        This is the integral over the trace: a message that spans a step pays both rates.
        """
        if bits <= 0:
            return t
        periods, target = divmod(self.bits_until(t) + bits, self._bits[-1])
        if target <= 0:  # the end of a period: the last step that carries anything
            periods, target = periods - 1, self._bits[-1]
        i = bisect_right(self._bits, target) - 1
        if self._bits[i] == target:  # reached at the end of an earlier step, not after idle ones
            i = self._bits.index(target) - 1
            return periods * self.period_s + (i + 1) * self.step_s
        within = (target - self._bits[i]) / (self.mbps[i] * 1e6)
        return max(t, periods * self.period_s + i * self.step_s + within)

    def shifted(self, steps: int) -> Trace:
        """Return the same trace begun `steps` steps later, as one who starts there sees it."""
        k = steps % len(self.mbps)
        return Trace(name=self.name, mbps=self.mbps[k:] + self.mbps[:k], step_s=self.step_s)


def constant(name: str, mbps: float) -> Trace:
    """Return a trace of one unchanging rate."""
    return Trace(name=name, mbps=(mbps,), step_s=1.0)


def from_rates(name: str, mbps: Sequence[float], step_s: float) -> Trace:
    """Return a trace from rates in Mbit/s, one a step."""
    return Trace(name=name, mbps=tuple(float(rate) for rate in mbps), step_s=float(step_s))
