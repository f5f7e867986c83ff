"""Packing frame rates into GPUs of one type, exactly: what fits on one, and what fits on n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum, inf

RESOLUTION_FPS = 0.01
SLACK = 1e-9  # relative; far above rounding errors, far below any frame rate
Pattern = tuple[int, ...]  # how many clients of each frame rate share a GPU


class TooMany(Exception):  # noqa: N818 - it says what happened
    """There are more patterns, or steps to search, than allowed."""


def fits(rates: Sequence[float], counts: Pattern, throughput: float) -> bool:
    """Tell whether `counts` clients of `rates` stay below `throughput`, rounded once."""
    return fsum(rate for rate, n in zip(rates, counts, strict=True) for _ in range(n)) < throughput


def carried(rates: Sequence[float], counts: Pattern, throughput: float) -> float:
    """Return frames/s that no set of at most `counts` clients exceeds on one GPU.

    It is the largest sum below the throughput where rates are whole hundredths, else just the
    throughput; in doubt more, never less.
    """
    hundredths = [round(rate / RESOLUTION_FPS) for rate in rates]
    whole = all(
        abs(n * RESOLUTION_FPS - r) <= 1e-12 * r for n, r in zip(hundredths, rates, strict=True)
    )
    most = throughput * (1 + 1e-12)
    if not whole or most > 1e6:
        return most
    limit = int(most / RESOLUTION_FPS * (1 + 1e-12))
    sums, mask = 1, (1 << limit + 1) - 1
    for weight, n in zip(hundredths, counts, strict=True):
        power = 1
        while n > 0:
            taken = min(power, n)
            if weight * taken <= limit:
                sums |= (sums << weight * taken) & mask
            n, power = n - taken, power * 2
    # A sum that equals the throughput is not below it, unless rounding made it so.
    if limit * RESOLUTION_FPS >= throughput and all(rate == int(rate) for rate in rates):
        sums &= (1 << limit) - 1
    return (sums.bit_length() - 1) * RESOLUTION_FPS


def patterns(
    rates: Sequence[float], counts: Pattern, throughput: float, effort: int
) -> list[Pattern]:
    """Return every way to fill a GPU to which no client can be added.

    Raises:
        TooMany: the search would take more than `effort` steps.
    """
    return list(_Fillings(rates, throughput, effort).maximal(counts))


def pack(
    rates: Sequence[float], counts: Pattern, throughput: float, gpus: int, effort: int
) -> list[Pattern] | None:
    """Return `counts` clients of `rates` spread over `gpus` GPUs; None if they do not fit.

    Raises:
        TooMany: the search would take more than `effort` steps.
    """
    fillings = _Fillings(rates, throughput, effort)

    def descend(left: Pattern, gpus_left: int) -> list[Pattern] | None:
        if not any(left):
            return [(0,) * len(rates)] * gpus_left
        total = fsum(r * n for r, n in zip(rates, left, strict=True))
        if total > gpus_left * throughput * (1 + SLACK):
            return None
        for pattern in fillings.maximal(left, with_largest=True):
            rest = tuple(n - taken for n, taken in zip(left, pattern, strict=True))
            packed = descend(rest, gpus_left - 1)
            if packed is not None:
                return [pattern, *packed]
        return None

    return descend(tuple(counts), gpus)


class _Fillings:
    """Enumerates fillings of a GPU, counting its steps.

    Rates are tried from the largest to the smallest. Comparisons with `SLACK` only prune; whether a
    filling fits is told by `fits`.
    """

    def __init__(self, rates: Sequence[float], throughput: float, effort: int) -> None:
        self._order = sorted(range(len(rates)), key=lambda i: -rates[i])
        self._rates = rates
        self._throughput = throughput
        self._slack = throughput * SLACK
        self._steps_left = effort

    def maximal(self, counts: Pattern, *, with_largest: bool = False) -> Iterator[Pattern]:
        """Yield the fillings with at most `counts` clients to which none of these can be added.

        Args:
            counts: clients there are, per rate.
            with_largest: only those that hold a client of the largest rate there is.
        """
        order = [i for i in self._order if counts[i]]
        after = [fsum(self._rates[i] * counts[i] for i in order[d:]) for d in range(len(order) + 1)]
        chosen = [0] * len(counts)

        def descend(depth: int, room: float, least_left_out: float) -> Iterator[Pattern]:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise TooMany
            if room - after[depth] > least_left_out + self._slack:
                return  # whoever was left out would still fit in the end
            if depth == len(order):
                if self._is_maximal(counts, tuple(chosen)):
                    yield tuple(chosen)
                return
            i = order[depth]
            rate = self._rates[i]
            most = min(counts[i], int((room + self._slack) / rate))
            fewest = 1 if with_largest and depth == 0 else 0
            for n in range(most, fewest - 1, -1):
                chosen[i] = n
                left_out = least_left_out if n == counts[i] else rate
                yield from descend(depth + 1, room - n * rate, left_out)
            chosen[i] = 0

        yield from descend(0, self._throughput, inf)

    def _is_maximal(self, counts: Pattern, pattern: Pattern) -> bool:
        if not fits(self._rates, pattern, self._throughput):
            return False
        for i in self._order:
            larger = (*pattern[:i], pattern[i] + 1, *pattern[i + 1 :])
            if pattern[i] < counts[i] and fits(self._rates, larger, self._throughput):
                return False
        return True
