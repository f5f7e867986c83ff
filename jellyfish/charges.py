"""What virtual time charges for work that it does not do: a value, or a recorded distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from random import Random
from zlib import crc32

from jellyfish.errors import ConfigError


@dataclass(frozen=True)
class Charge:
    """A time in ms: always the same, or drawn from a distribution.

    Args:
        quantiles_ms: the distribution at evenly spaced shares from 0 (its least) to 1 (its most),
            linear between them; a single one is charged always.

    Raises:
        ConfigError: there are none, they descend, or one is negative or not finite.
    """

    quantiles_ms: tuple[float, ...]

    def __post_init__(self) -> None:
        values = self.quantiles_ms
        if not values or not all(isfinite(ms) and ms >= 0 for ms in values):
            raise ConfigError(f"a charge wants times in ms, 0 or more, not {list(values)}")
        if any(a > b for a, b in pairwise(values)):
            raise ConfigError(f"a charge wants quantiles that do not descend, not {list(values)}")

    def at(self, share: float) -> float:
        """Return the ms below which lies `share`, in [0, 1], of the distribution."""
        values = self.quantiles_ms
        place = share * (len(values) - 1)
        i = min(int(place), len(values) - 2) if len(values) > 1 else 0
        low = values[i]
        return low if i == place else low + (place - i) * (values[i + 1] - low)

    def draws(self, seed: int) -> Callable[[], float]:
        """Return a function that gives one ms after the other, the same ones for a seed."""
        if len(self.quantiles_ms) == 1:
            (always,) = self.quantiles_ms
            return lambda: always
        share = Random(seed).random
        return lambda: self.at(share())


def charge(value: Charge | float | Sequence[float]) -> Charge:
    """Return the charge that a value in ms, or a list of quantiles, stands for.

    Raises:
        ConfigError: it stands for none.
    """
    if isinstance(value, Charge):
        return value
    values = [value] if isinstance(value, int | float) else value
    try:
        return Charge(tuple(map(float, values)))
    except (TypeError, ValueError):
        raise ConfigError(f"a charge is a number or a list of them, in ms, not {value!r}") from None


NOTHING = Charge((0.0,))


def derived_seed(seed: int, name: str) -> int:
    """Return the seed of the random numbers called `name` in a run with `seed`."""
    return crc32(name.encode(), seed & 0xFFFFFFFF) | (seed & 0xFFFFFFFF) << 32
