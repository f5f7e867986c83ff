"""The published scheduler, to the letter: simulated annealing over DNNs, clients by knapsack.

RTSS 2022, section IV, and the published implementation. The annealing first degrades DNNs until
every servable client is mapped, then upgrades them while that stays so. Its notion of a servable
client is the published one (some budget left for the smallest DNN), under which one client that no
GPU can serve stops every upgrade.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import numpy as np

from jellyfish.profile import Profile
from jellyfish.scheduling.kernels.annealing import (
    BEST,
    EFFECTIVENESS,
    STATE,
    THRESHOLD,
    UNKNOWN,
    Memory,
    Walk,
    anneal,
)
from jellyfish.scheduling.kernels.filling import Rows
from jellyfish.scheduling.mapping import everybody, knapsack, plan, rows_of
from jellyfish.scheduling.problem import Budget, Plan, Problem

HOTTEST, COLDEST, COOLING = 0.0125, 0.0005, 0.99
STEPS_AT_ONCE = 1000  # of a budget that need not be asked
NODES = 1 << 15  # some 100 bytes each; forgotten and begun anew when full

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
    rows = rows_of(problem)
    running = problem.start_dnns
    # Old and new DNNs are paired in order, so that GPUs swap as little as possible.
    by_dnn = sorted(range(problem.gpus), key=lambda gpu: running[gpu])
    start = tuple(running[gpu] for gpu in by_dnn)
    found = Annealer(problem, rows, start, seed).run(budget)
    dnns = dict(zip(by_dnn, found, strict=True))
    in_turn = [dnns[gpu] for gpu in range(problem.gpus)]
    return plan(problem, rows, in_turn, grow_batches=grow_batches)


def warm() -> None:
    """Compile or load from disk what `solve` needs."""
    profile = Profile(input_px=[32], frame_bytes=[1.0], accuracy=[1.0], latency_ms=[[1.0]])
    solve(Problem(gpus=1, profile=profile, fps=[1.0], slo_ms=[1e3], bandwidth_kbps=[1e6]), 0, 1)


class Annealer:
    """Searches the multisets of DNNs that the GPUs may run, and remembers what each is worth."""

    def __init__(self, problem: Problem, rows: Rows, start: Dnns, seed: int) -> None:
        self._rows = rows
        self._knapsack = knapsack(rows)
        self._memory = _memory(problem)
        self.walk = Walk(
            dnns=np.tile(np.array(start, np.int64), (3, 1)),
            worth=np.full((3, 2), UNKNOWN),
            counts=np.zeros(2, np.int64),
            random=np.array(random.Random(seed).getstate()[1]),
        )

    def run(self, budget: Budget) -> Dnns:
        """Return the best DNNs found from the start; both ascending."""
        walk = self.walk
        if walk.dnns.size and self._rows.servable[0]:
            self._phase(budget, upgrade=False)
            if walk.worth[BEST, EFFECTIVENESS] >= THRESHOLD:
                walk.dnns[STATE], walk.worth[STATE] = walk.dnns[BEST], walk.worth[BEST]
                self._phase(budget, upgrade=True)
        return tuple(walk.dnns[BEST].tolist())

    def _phase(self, budget: Budget, *, upgrade: bool) -> None:
        temperatures = _temperatures(budget)
        at_once = 1 if callable(budget) else STEPS_AT_ONCE
        while now := list(islice(temperatures, at_once)):
            if anneal(self._rows, self._memory, self._knapsack, self.walk, np.array(now), upgrade):
                break


def _memory(problem: Problem) -> Memory:
    nodes = max(NODES, problem.gpus + 2)
    left = everybody(problem)
    memory = Memory(
        after=np.empty((nodes, problem.profile.dnns), np.int32),
        left=np.empty((nodes, len(left)), np.uint64),
        mapped=np.empty(nodes, np.int64),
        fps=np.empty(nodes),
        used=np.ones(1, np.int64),
    )
    memory.after[0], memory.left[0], memory.mapped[0] = 0, left, 0
    return memory


def _temperatures(budget: Budget) -> Iterator[float]:
    if isinstance(budget, int):
        for i in range(budget):
            yield HOTTEST * (COLDEST / HOTTEST) ** (i / budget)
        return
    temperature = HOTTEST
    while temperature > COLDEST and (budget is None or budget()):
        yield temperature
        temperature *= COOLING
