"""The published scheduler once more, plainly and without haste: what the compiled one is held to.

RTSS 2022, section IV. Nothing is shared with the compiled one but the problem and its budgets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, exp, inf

import numpy as np

from jellyfish.scheduling.problem import Problem

HOTTEST, COLDEST, COOLING = 0.0125, 0.0005, 0.99

Dnns = tuple[int, ...]  # ascending


@dataclass(frozen=True)
class Row:
    """A client that a DNN can serve, in units of 5 frames/s, or of 0.01 where those do not do."""

    client: int
    weight: int
    capacity: int


@dataclass(frozen=True)
class Visit:
    """A neighbour that was tried: its DNNs, whether it was taken, and what it is worth."""

    dnns: Dnns
    taken: bool
    effectiveness: float
    accuracy: float


class PlainMapper:
    """Maps clients to GPUs in turn, and remembers what a DNN takes of those that are left."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._rows = [_rows(problem, dnn) for dnn in range(problem.profile.dnns)]
        self._taken: dict[tuple[int, frozenset[int]], list[int]] = {}

    def take(self, dnn: int, left: frozenset[int]) -> list[int]:
        """Return the clients that a GPU takes, from the least budget up."""
        if (dnn, left) not in self._taken:
            self._taken[dnn, left] = _knapsack([r for r in self._rows[dnn] if r.client in left])
        return self._taken[dnn, left]

    def fill(self, dnns: Dnns) -> list[list[int]]:
        """Return the clients of each GPU."""
        accuracy = self.problem.profile.accuracy
        left = frozenset(range(self.problem.clients))
        members: list[list[int]] = [[] for _ in dnns]
        for gpu in sorted(range(len(dnns)), key=lambda gpu: -accuracy[dnns[gpu]]):
            members[gpu] = self.take(dnns[gpu], left)
            left = left.difference(members[gpu])
        return members


class PlainAnnealing:
    """One annealing: its visits while it goes on, then `best`."""

    def __init__(self, problem: Problem, start: Dnns, seed: int) -> None:
        self.best = start
        self._problem = problem
        self._mapper = PlainMapper(problem)
        self._rng = random.Random(seed)
        self._servable = np.flatnonzero(problem.budget_ms[:, 0] > 0).tolist()
        self._known: dict[Dnns, tuple[float, float]] = {}

    def visits(self) -> Iterator[Visit]:
        """Yield every neighbour tried."""
        if not self.best or not self._servable:
            return
        yield from self._phase((-1, 0), lambda dnns: self._worth(dnns)[0], enough=1.0)
        if self._worth(self.best)[0] >= 1.0:
            yield from self._phase((-1, 0, 1), self._accuracy, enough=inf)

    def _phase(
        self, moves: tuple[int, ...], worth: Callable[[Dnns], float], enough: float
    ) -> Iterator[Visit]:
        state, temperature = self.best, HOTTEST
        while temperature > COLDEST and worth(self.best) < enough:
            tried = self._neighbour(state, moves)
            gain = worth(tried) - worth(state)
            taken = gain >= 0 or self._rng.random() < exp(gain / temperature)
            yield Visit(tried, taken, *self._worth(tried))
            if taken:
                state = tried
            if worth(state) > worth(self.best):
                self.best = state
            temperature *= COOLING

    def _neighbour(self, state: Dnns, moves: tuple[int, ...]) -> Dnns:
        largest = self._problem.profile.dnns - 1
        moved = [dnn + self._rng.choice(moves) for dnn in state]
        return tuple(sorted(min(max(dnn, 0), largest) for dnn in moved))

    def _accuracy(self, dnns: Dnns) -> float:
        effectiveness, accuracy = self._worth(dnns)
        return accuracy if effectiveness >= 1.0 else -inf

    def _worth(self, dnns: Dnns) -> tuple[float, float]:
        if dnns not in self._known:
            members = self._mapper.fill(dnns)
            accuracy = self._problem.profile.accuracy.tolist()
            earned = sum(accuracy[m] * self._fps(who) for m, who in zip(dnns, members, strict=True))
            self._known[dnns] = (
                sum(map(len, members)) / len(self._servable),
                earned / self._problem.total_fps(self._servable),
            )
        return self._known[dnns]

    def _fps(self, clients: Iterable[int]) -> float:
        return float(sum(self._problem.fps[list(clients)].tolist()))


def _rows(problem: Problem, dnn: int) -> list[Row]:
    """Return the clients that a DNN can serve at all, by budget, ties in client order."""
    fastest = float(problem.profile.throughput.max())
    slow_enough = [i for i, fps in enumerate(problem.fps.tolist()) if 0 < fps < fastest]
    unit = 0.01 if (problem.fps[slow_enough] % 5).any() else 5.0
    throughput = problem.profile.throughput[dnn].tolist()
    drops = [b for b in range(1, len(throughput)) if throughput[b] < throughput[b - 1]]
    rows = []
    for client in sorted(slow_enough, key=lambda i: -problem.budget_ms[i, dnn]):
        batch = min([int(problem.largest_batch[client, dnn]), len(throughput), *drops])
        if batch:
            weight = max(1, ceil(problem.fps[client] / unit - 1e-6))
            below = ceil(throughput[batch - 1] / unit - (len(slow_enough) + 1) * 1e-6) - 1
            rows.append(Row(client, weight, max(0, below)))
    return rows


def _knapsack(rows: list[Row]) -> list[int]:
    """Return the clients that fill a GPU best, among the first n of `rows` for any n.

    Bit w of `reachable[n]` says whether some of the first n weigh w together.
    """
    reachable = [1]
    best_weight = best_rows = 0
    for n, row in enumerate(rows, start=1):
        sums = reachable[-1] | reachable[-1] << row.weight
        sums &= (1 << row.capacity + 1) - 1
        reachable.append(sums)
        if sums.bit_length() - 1 > best_weight:
            best_weight, best_rows = sums.bit_length() - 1, n
        if best_weight >= row.capacity:
            break  # later rows have no more room
    taken = []
    for n in reversed(range(best_rows)):
        if not reachable[n] >> best_weight & 1:  # not without this one
            taken.append(rows[n].client)
            best_weight -= rows[n].weight
    return taken
