"""The optimum, proven: as many clients as any plan serves, then as much accuracy.

A binary variable for every GPU, client and DNN is hopeless beyond two GPUs. GPUs are
interchangeable, so it is enough to count them per type (DNN, batch size), and clients that differ
only in bandwidth are nested: who is eligible for a type, a better connected one is too. So the
program counts clients per chain of nested eligibility and type. Whether the clients counted for a
type can be packed into its GPUs is checked afterwards; where they cannot, the type is described in
more detail (by the ways to fill one GPU, or GPU by GPU), and all is solved again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jellyfish.scheduling.gpu_types import GpuTypes, gpu_types
from jellyfish.scheduling.milp import Answer, IntegerProgram
from jellyfish.scheduling.packing import Pattern, TooMany, carried, pack, patterns
from jellyfish.scheduling.placing import place
from jellyfish.scheduling.problem import Budget, Plan, Problem
from jellyfish.scheduling.staying import Group

PACKING_STEPS = 5_000
PATTERN_STEPS = 20_000
TOLERANCE = 1e-7  # on accuracy; HiGHS's own on sums of frame rates is 1e-6


@dataclass(frozen=True)
class Optimum:
    """The best plan, and what no plan exceeds.

    Args:
        plan: proven optimal if `proven`, else the best found.
        effectiveness_bound: of any plan.
        accuracy_bound: of any plan that serves as many clients as this one.
    """

    plan: Plan
    effectiveness_bound: float
    accuracy_bound: float
    proven: bool


@dataclass(frozen=True)
class _Chain:
    """Clients of one frame rate, each eligible for all that the one before is eligible for.

    `first[t]` is the position of the first member that type t can serve, if any.
    """

    rate: int  # index into the distinct frame rates
    members: Sequence[int]
    first: dict[int, int]


def solve(problem: Problem, seed: int = 0, budget: Budget = None) -> Plan:
    """Return an optimal plan, or the best found within `budget` (branch-and-bound nodes)."""
    return prove(problem, budget).plan


def prove(problem: Problem, budget: Budget = None) -> Optimum:
    """Return an optimal plan and its bounds; what was known by then if `budget` ends before."""
    program = _Program(problem)
    while True:
        counted = program.maximize(program.number_served(), budget)
        if counted.values is None:
            break
        most = round(float(counted.values[list(program.number_served())].sum()))
        weighed = program.maximize(program.accuracy_earned(), budget, serving=most)
        if weighed.values is None:
            weighed = Answer(counted.values, weighed.bound, proven=False)
        unpacked = program.unpacked(weighed)
        if not unpacked or not weighed.proven or not program.refine(unpacked):
            return _optimum(problem, program, counted, weighed)
    nothing = Answer(np.zeros(len(program.milp.upper)), counted.bound, proven=False)
    return _optimum(problem, program, counted, nothing)


def _optimum(problem: Problem, program: _Program, counted: Answer, weighed: Answer) -> Optimum:
    plan = place(problem, program.groups(weighed))
    servable = np.flatnonzero(problem.servable).tolist()
    if not servable:
        return Optimum(plan, 1.0, 0.0, proven=True)
    effectiveness = min(1.0, np.floor(counted.bound + 1e-6) / len(servable))
    best = float(problem.profile.accuracy.max())
    accuracy = min(best, weighed.bound / problem.total_fps(servable))
    reached = plan.effectiveness >= effectiveness - 1e-9 and plan.accuracy >= accuracy - TOLERANCE
    proven = counted.proven and weighed.proven and reached
    return Optimum(plan, effectiveness, max(accuracy, plan.accuracy), proven)


class _Program:
    """The integer program of one problem, at a level of detail that `refine` raises."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._types = gpu_types(problem)
        served = np.flatnonzero(self._types.eligible.any(axis=1)).tolist()
        self._rates: list[float] = sorted({float(problem.fps[i]) for i in served})
        self._chains = _chains(problem, self._types, served, self._rates)
        self._patterns: dict[int, list[Pattern]] = {}  # of types described by these
        self._apart: set[int] = set()  # types described GPU by GPU
        self._build()

    def number_served(self) -> dict[int, float]:
        return dict.fromkeys((v for by in self._served for v in by.values()), 1.0)

    def accuracy_earned(self) -> dict[int, float]:
        accuracy = self._types.accuracy
        return {
            variable: float(accuracy[t]) * self._rates[chain.rate]
            for t, by_chain in enumerate(self._served)
            for chain, variable in ((self._chains[k], v) for k, v in by_chain.items())
        }

    def maximize(
        self, worth: dict[int, float], budget: Budget, serving: int | None = None
    ) -> Answer:
        """Return the most of `worth`, over all plans or those that serve `serving` clients."""
        if serving is None:
            return self.milp.maximize(worth, budget)
        self.milp.at_least(self.number_served(), serving)
        answer = self.milp.maximize(worth, budget)
        self.milp.rows.pop()
        self.milp.limits.pop()
        return answer

    def unpacked(self, answer: Answer) -> list[int]:
        """Return the types whose clients, as counted, do not fit their GPUs one by one."""
        return [t for t in range(len(self._types)) if self._bins(answer, t) is None]

    def refine(self, types: Sequence[int]) -> bool:
        """Describe `types` in more detail; False if none has more."""
        coarse = [t for t in types if t not in self._patterns and t not in self._apart]
        for t in coarse:
            throughput = float(self._types.throughput[t])
            try:
                found = patterns(self._rates, self._eligible(t), throughput, PATTERN_STEPS)
                self._patterns[t] = found
            except TooMany:
                self._apart.add(t)
        if coarse:
            self._build()
        return bool(coarse)

    def groups(self, answer: Answer) -> list[Group]:
        """Return who shares a GPU; clients whose type could not be packed may be left out."""
        assert answer.values is not None
        members = self._members(answer)
        found: list[Group] = []
        for t in range(len(self._types)):
            bins = self._bins(answer, t)
            if bins is None:
                bins = self._bins_of_some(answer, t)
            for pattern in bins:
                taken = [members[t, r].pop() for r, n in enumerate(pattern) for _ in range(n)]
                found.append((int(self._types.dnn[t]), taken))
        return found

    def _build(self) -> None:
        self.milp = IntegerProgram()
        gpus = self._problem.gpus
        self._gpus = [self.milp.variable(gpus) for _ in range(len(self._types))]
        if self._gpus:
            self.milp.at_most(dict.fromkeys(self._gpus, 1.0), gpus)
        self._served: list[dict[int, int]] = [{} for _ in self._gpus]  # variable by chain, by type
        for k, chain in enumerate(self._chains):
            self._add_chain(k, chain)
        self._ways: dict[int, list[tuple[int, Pattern]]] = {}
        self._copies: dict[int, list[dict[int, int]]] = {}
        for t in range(len(self._types)):
            if t in self._patterns:
                self._add_ways(t)
            elif t in self._apart:
                self._add_copies(t)
            else:
                load = {v: self._rates[self._chains[k].rate] for k, v in self._served[t].items()}
                self.milp.at_most(load | {self._gpus[t]: -self._carried(t)}, 0.0)

    def _add_chain(self, k: int, chain: _Chain) -> None:
        """Count the chain's clients per type; no more behind a position than there are."""
        behind: dict[int, float] = {}
        by_first = defaultdict(list)
        for t, first in chain.first.items():
            by_first[first].append(t)
        for first in sorted(by_first, reverse=True):
            left = len(chain.members) - first
            for t in by_first[first]:
                self._served[t][k] = self.milp.variable(left)
                behind[self._served[t][k]] = 1.0
            self.milp.at_most(behind, left)

    def _add_ways(self, t: int) -> None:
        self._ways[t] = [
            (self.milp.variable(self._problem.gpus), pattern) for pattern in self._patterns[t]
        ]
        self.milp.at_most({v: 1.0 for v, _ in self._ways[t]} | {self._gpus[t]: -1.0}, 0.0)
        for rate, by in self._by_rate(t).items():
            room = {v: -float(pattern[rate]) for v, pattern in self._ways[t] if pattern[rate]}
            self.milp.at_most(dict.fromkeys(by, 1.0) | room, 0.0)

    def _add_copies(self, t: int) -> None:
        by_rate = self._by_rate(t)
        self._copies[t] = []
        used = []
        for _ in range(self._problem.gpus):
            copy = {rate: self.milp.variable(self._eligible(t)[rate]) for rate in by_rate}
            used.append(self.milp.variable(1))
            load = {v: self._rates[rate] for rate, v in copy.items()}
            self.milp.at_most(load | {used[-1]: -self._carried(t)}, 0.0)
            self._copies[t].append(copy)
        for earlier, later in pairwise(used):
            self.milp.at_most({later: 1.0, earlier: -1.0}, 0.0)
        self.milp.at_most(dict.fromkeys(used, 1.0) | {self._gpus[t]: -1.0}, 0.0)
        for rate, by in by_rate.items():
            room = {copy[rate]: -1.0 for copy in self._copies[t]}
            self.milp.at_most(dict.fromkeys(by, 1.0) | room, 0.0)

    def _by_rate(self, t: int) -> dict[int, list[int]]:
        found = defaultdict(list)
        for k, variable in self._served[t].items():
            found[self._chains[k].rate].append(variable)
        return found

    def _eligible(self, t: int) -> Pattern:
        """Return how many clients of each frame rate type t can serve."""
        counts = Counter[int]()
        for k in self._served[t]:
            chain = self._chains[k]
            counts[chain.rate] += len(chain.members) - chain.first[t]
        return tuple(counts[rate] for rate in range(len(self._rates)))

    def _carried(self, t: int) -> float:
        return carried(self._rates, self._eligible(t), float(self._types.throughput[t]))

    def _counts(self, answer: Answer, t: int) -> Pattern:
        assert answer.values is not None
        counts = [0] * len(self._rates)
        for k, variable in self._served[t].items():
            counts[self._chains[k].rate] += round(float(answer.values[variable]))
        return tuple(counts)

    def _bins(self, answer: Answer, t: int) -> list[Pattern] | None:
        """Return what each GPU of type t serves; None if the clients counted do not fit."""
        assert answer.values is not None
        counts = self._counts(answer, t)
        if not any(counts):
            return []
        gpus = round(float(answer.values[self._gpus[t]]))
        if t in self._ways:
            bins = [p for v, p in self._ways[t] for _ in range(round(float(answer.values[v])))]
            return _clipped(bins, counts)
        throughput = float(self._types.throughput[t])
        if t in self._copies:
            bins = [
                tuple(
                    round(float(answer.values[copy[r]])) if r in copy else 0
                    for r in range(len(self._rates))
                )
                for copy in self._copies[t]
            ]
            bins = _clipped(bins, counts)
            if all(pack(self._rates, each, throughput, 1, PACKING_STEPS) for each in bins):
                return bins
        try:
            return pack(self._rates, counts, throughput, gpus, PACKING_STEPS)
        except TooMany:
            return None

    def _bins_of_some(self, answer: Answer, t: int) -> list[Pattern]:
        """Return bins of type t for as many of the counted clients as fit in a first try."""
        assert answer.values is not None
        throughput = float(self._types.throughput[t])
        room = [throughput * (1 - 1e-9)] * round(float(answer.values[self._gpus[t]]))
        bins = [[0] * len(self._rates) for _ in room]
        for rate, n in sorted(enumerate(self._counts(answer, t)), reverse=True):
            for _ in range(n):
                gpu = max(range(len(room)), key=room.__getitem__, default=-1)
                if gpu >= 0 and room[gpu] >= self._rates[rate]:
                    room[gpu] -= self._rates[rate]
                    bins[gpu][rate] += 1
        return [tuple(each) for each in bins]

    def _members(self, answer: Answer) -> dict[tuple[int, int], list[int]]:
        """Return which clients each type serves, by type and frame rate."""
        assert answer.values is not None
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        for k, chain in enumerate(self._chains):
            left = list(chain.members)
            # Who needs the best connected serves first, and leaves those alike to the others.
            for t, _ in sorted(chain.first.items(), key=lambda item: -item[1]):
                n = round(float(answer.values[self._served[t][k]]))
                found[t, chain.rate] += left[len(left) - n :]
                del left[len(left) - n :]
        return found


def _clipped(bins: Sequence[Pattern], counts: Pattern) -> list[Pattern]:
    """Return `bins` with no more clients in all than `counts`."""
    left = list(counts)
    found = []
    for pattern in bins:
        taken = [min(n, have) for n, have in zip(pattern, left, strict=True)]
        left = [have - n for n, have in zip(taken, left, strict=True)]
        found.append(tuple(taken))
    return found


def _chains(
    problem: Problem, types: GpuTypes, served: Sequence[int], rates: Sequence[float]
) -> list[_Chain]:
    """Return `served` as few chains in which eligibility grows from client to client."""
    eligible = {i: frozenset(np.flatnonzero(types.eligible[i]).tolist()) for i in served}
    chains: dict[int, list[list[int]]] = defaultdict(list)
    for i in sorted(served, key=lambda i: len(eligible[i])):
        of_rate = chains[rates.index(problem.fps[i])]
        for chain in of_rate:
            if eligible[chain[-1]] <= eligible[i]:
                chain.append(i)
                break
        else:
            of_rate.append([i])
    return [
        _Chain(rate, members, _first(members, eligible))
        for rate, of_rate in chains.items()
        for members in of_rate
    ]


def _first(members: Sequence[int], eligible: dict[int, frozenset[int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for position, member in enumerate(members):
        for t in eligible[member]:
            found.setdefault(t, position)
    return found
