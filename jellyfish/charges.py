"""What virtual time charges for work that it does not do: a value, or a recorded distribution."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from random import Random
from typing import Any
from zlib import crc32

from jellyfish.errors import ConfigError


@dataclass(frozen=True)
class Charge:
    """A time in ms: always the same, or drawn from a distribution.

    Args:
        quantiles_ms: what the distribution is at most, with the chances in `shares`; linear between
            them. A single one is charged always.
        shares: chances from 0 to 1, ascending; by default at even distances.

    Raises:
        ConfigError: there are no quantiles, they descend, one is negative or not finite, or the
            shares are not as many or no such chances.
    """

    quantiles_ms: tuple[float, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values, shares = self.quantiles_ms, self.shares
        if not values or not all(isfinite(ms) and ms >= 0 for ms in values):
            raise ConfigError(f"a charge wants times in ms, 0 or more, not {list(values)}")
        if any(a > b for a, b in pairwise(values)):
            raise ConfigError(f"a charge wants quantiles that do not descend, not {list(values)}")
        if not shares:
            last = max(len(values) - 1, 1)
            shares = tuple(i / last for i in range(len(values)))
            object.__setattr__(self, "shares", shares)
        ascend = all(a < b for a, b in pairwise(shares))
        if len(shares) != len(values) or shares[0] != 0 or not ascend or max(1, *shares) != 1:
            raise ConfigError(f"a charge wants shares from 0 up to 1, not {list(shares)}")

    def at(self, share: float) -> float:
        """Return the ms below which lies `share`, in [0, 1], of the distribution."""
        values, shares = self.quantiles_ms, self.shares
        i = bisect_left(shares, share)
        if i == 0 or i == len(shares):
            return values[0 if i == 0 else -1]
        low, high = values[i - 1], values[i]
        return low + (high - low) * (share - shares[i - 1]) / (shares[i] - shares[i - 1])

    def draws(self, seed: int) -> Callable[[], float]:
        """Return a function that gives one ms after the other, the same ones for a seed."""
        if len(self.quantiles_ms) == 1:
            (always,) = self.quantiles_ms
            return lambda: always
        share = Random(seed).random
        return lambda: self.at(share())


def charge(value: Charge | float | Sequence[float] | Sequence[Sequence[float]]) -> Charge:
    """Return what a value in ms, a list of quantiles, or one of (share, quantile) stands for.

    Raises:
        ConfigError: it stands for none.
    """
    if isinstance(value, Charge):
        return value
    values: Any = [value] if isinstance(value, int | float) else value
    try:
        if values and isinstance(values[0], Sequence) and not isinstance(values[0], str):
            shares, values = zip(*values, strict=True)
            return Charge(tuple(map(float, values)), tuple(map(float, shares)))
        return Charge(tuple(map(float, values)))
    except (TypeError, ValueError, KeyError, IndexError):
        raise ConfigError(f"a charge is a number or a list of them, in ms, not {value!r}") from None


NOTHING = Charge((0.0,))


def derived_seed(seed: int, name: str) -> int:
    """Return the seed of the random numbers called `name` in a run with `seed`."""
    return crc32(name.encode(), seed & 0xFFFFFFFF) | (seed & 0xFFFFFFFF) << 32
