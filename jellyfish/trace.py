"""A bandwidth trace: the rate of a link over time, looping, as a piecewise constant function."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf, isfinite

from jellyfish.errors import ConfigError

_ROUNDING = 1e-14  # a sum that rounding raised past a step's end must not wait out an idle step


@dataclass(frozen=True)
class Trace:
    """`mbps[i]` Mbit/s during [i * step_s, (i + 1) * step_s), then from the start again.

    Plain Python on purpose: the relay and the simulated link ask it once a message, and the
    relay's process should start without numpy.

    Raises:
        ConfigError: no steps, a negative or non-finite rate, nothing carried at all, step_s <= 0.
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
        bits = (0.0, *accumulate(rate * 1e6 * self.step_s for rate in self.mbps))
        if not 0 < bits[-1] < inf:
            raise ConfigError(
                f"trace {self.name}: it carries {bits[-1]:g} bits in {self.period_s:g} s; "
                "want more than 0, and finite"
            )
        object.__setattr__(self, "_bits", bits)

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
        within = min(max(rest - i * self.step_s, 0.0), self.step_s)  # rounding may leave the step
        return periods * self._bits[-1] + (self._bits[i] + self.mbps[i] * 1e6 * within)

    def departure(self, t: float, bits: float) -> float:
        """Return when the last of `bits` has left a link that is free from `t` seconds on.

        This is the integral over the trace: a message that spans a step pays both rates.
        """
        if bits <= 0:
            return t
        total = (self.bits_until(t) + bits) * (1 - _ROUNDING)
        periods, target = divmod(total, self._bits[-1])
        if target == 0:  # with the end of a period, not with the start of the next
            periods, target = periods - 1, self._bits[-1]
        i = bisect_left(self._bits, target) - 1  # the step that reaches it: never one of rate 0
        within = min((target - self._bits[i]) / (self.mbps[i] * 1e6), self.step_s)
        return max(t, periods * self.period_s + (i * self.step_s + within))

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
