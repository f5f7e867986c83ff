"""The published scheduler, to the letter: simulated annealing over DNNs, clients by knapsack.

RTSS 2022, section IV, and the published implementation. The annealing first degrades DNNs until
every servable client is mapped, then upgrades them while that stays so. Its notion of a servable
client is the published one (some budget left for the smallest DNN), under which one client that no
GPU can serve stops every upgrade.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from math import exp, inf

import numpy as np

from jellyfish.scheduling.mapping import Mapper, map_clients
from jellyfish.scheduling.problem import Budget, Plan, Problem

__all__ = ["Annealer", "map_clients", "solve"]

THRESHOLD = 1.0  # effectiveness below which DNNs are degraded
HOTTEST, COLDEST, COOLING = 0.0125, 0.0005, 0.99
DEGRADE = (-1, 0)
UPGRADE = (-1, 0, 1)

Dnns = tuple[int, ...]  # a multiset of DNN indices, ascending


def solve(problem: Problem, seed: int, budget: Budget = None, *, grow_batches: bool = True) -> Plan:
    """Return the published scheduler's plan; the same for the same arguments.

    Args:
        problem: clients, GPUs and what these run now.
        seed: of the annealing.
        budget: neighbours tried in each of the two phases, cooling over the published range; None
            for the published rate of cooling (some 320), or until a call says no.
        grow_batches: enlarge batches beyond what the frame rates need, as the published server
            does and its simulation does not.
    """
    mapper = Mapper(problem)
    running = problem.start_dnns
    # Old and new DNNs are paired in order, so that GPUs swap as little as possible.
    by_dnn = sorted(range(problem.gpus), key=lambda gpu: running[gpu])
    start = tuple(running[gpu] for gpu in by_dnn)
    found = Annealer(mapper, random.Random(seed), budget).run(start)
    dnns = dict(zip(by_dnn, found, strict=True))
    return mapper.plan([dnns[gpu] for gpu in range(problem.gpus)], grow_batches=grow_batches)


class Annealer:
    """Searches the multisets of DNNs that the GPUs may run, and remembers what each is worth."""

    def __init__(self, mapper: Mapper, rng: random.Random, budget: Budget = None) -> None:
        problem = mapper.problem
        self._mapper = mapper
        self._rng = rng
        self._budget = budget
        self._largest_dnn = problem.profile.dnns - 1
        self._dnn_accuracy = problem.profile.accuracy.tolist()
        servable = np.flatnonzero(problem.budget_ms[:, 0] > 0).tolist()
        self._servable = len(servable)
        self._servable_fps = problem.total_fps(servable)
        self._worths: dict[Dnns, tuple[float, float]] = {}

    def run(self, start: Dnns) -> Dnns:
        """Return the best DNNs found from `start`; both ascending."""
        if not start or not self._servable:
            return start
        state = self._phase(start, DEGRADE, self._effectiveness, enough=THRESHOLD)
        if self._effectiveness(state) < THRESHOLD:
            return state
        return self._phase(state, UPGRADE, self._accuracy, enough=inf)

    def _phase(
        self, state: Dnns, moves: Sequence[int], worth: Callable[[Dnns], float], enough: float
    ) -> Dnns:
        """Return the best state of one annealing, which ends early at a worth of `enough`."""
        best = state
        for temperature in _temperatures(self._budget):
            if worth(best) >= enough:
                break
            neighbour = self._neighbour(state, moves)
            gain = worth(neighbour) - worth(state)
            if gain >= 0 or self._rng.random() < exp(gain / temperature):
                state = neighbour
            if worth(state) > worth(best):
                best = state
        return best

    def _neighbour(self, state: Dnns, moves: Sequence[int]) -> Dnns:
        moved = (dnn + self._rng.choice(moves) for dnn in state)
        return tuple(sorted(min(max(dnn, 0), self._largest_dnn) for dnn in moved))

    def _effectiveness(self, dnns: Dnns) -> float:
        return self._worth(dnns)[0]

    def _accuracy(self, dnns: Dnns) -> float:
        """Return the accuracy per request; below the threshold, a worth that is never taken."""
        effectiveness, accuracy = self._worth(dnns)
        return accuracy if effectiveness >= THRESHOLD else -inf

    def _worth(self, dnns: Dnns) -> tuple[float, float]:
        if dnns not in self._worths:
            fillings = self._mapper.fill(dnns)
            mapped = sum(filling.clients.bit_count() for filling in fillings)
            earned = sum(
                self._dnn_accuracy[dnn] * filling.fps
                for dnn, filling in zip(dnns, fillings, strict=True)
            )
            self._worths[dnns] = mapped / self._servable, earned / self._servable_fps
        return self._worths[dnns]


def _temperatures(budget: Budget) -> Iterator[float]:
    if isinstance(budget, int):
        for i in range(budget):
            yield HOTTEST * (COLDEST / HOTTEST) ** (i / budget)
        return
    temperature = HOTTEST
    while temperature > COLDEST and (budget is None or budget()):
        yield temperature
        temperature *= COOLING
