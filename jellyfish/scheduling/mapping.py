"""The published mapping of clients to GPUs whose DNNs are given: a knapsack per GPU.

RTSS 2022, section IV, with every detail of the published implementation. GPUs choose in turn, the
one with the most accurate DNN first, each the set of remaining clients whose frame rates fill it
best. Frame rates need not be multiples of 5 here, which the published unit was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

from jellyfish.profile import FloatArray
from jellyfish.scheduling.problem import BATCHES_IN_BUDGET, GpuPlan, Plan, Problem, check

RESOLUTION_FPS = 0.01
ROUNDING = 1e-6  # what a frame rate may be off its hundredth without counting as the next


@dataclass(frozen=True)
class Filling:
    """The clients that one GPU takes, as a bit set, and their frames per second together."""

    clients: int
    fps: float


NOBODY = Filling(0, 0.0)


@dataclass(frozen=True)
class _Row:
    """A client that may come onto a GPU with a certain DNN.

    Args:
        client: its index.
        weight: its frame rate in units.
        capacity: units that the GPU carries at the largest batch which meets its deadline.
    """

    client: int
    weight: int
    capacity: int


class Mapper:
    """Maps the clients of one problem to any choice of DNNs, and remembers what it worked out.

    What a GPU takes depends on its DNN and on the clients that are left, and on nothing else; an
    annealing meets the same pairs again and again.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._rows: list[list[_Row]] = _all_rows(problem)
        self._fillings: dict[tuple[int, int], Filling] = {}

    def order(self, dnns: Sequence[int]) -> list[int]:
        """Return the GPUs in the order in which they choose: by accuracy, then by index."""
        accuracy = self.problem.profile.accuracy
        return sorted(range(len(dnns)), key=lambda gpu: -accuracy[dnns[gpu]])

    def fill(self, dnns: Sequence[int]) -> list[Filling]:
        """Return what each GPU takes when GPU g runs DNN `dnns[g]`."""
        left = (1 << self.problem.clients) - 1
        fillings = [NOBODY] * len(dnns)
        for gpu in self.order(dnns):
            fillings[gpu] = self._filling(dnns[gpu], left)
            left &= ~fillings[gpu].clients
        return fillings

    def plan(self, dnns: Sequence[int], *, grow_batches: bool) -> Plan:
        """Return the plan in which GPU g runs DNN `dnns[g]`, with batch sizes chosen.

        Args:
            dnns: (G,) DNN of each GPU.
            grow_batches: enlarge batches beyond what the frame rates need, as when serving.
        """
        clients: list[int | None] = [None] * self.problem.clients
        gpus: list[GpuPlan | None] = []
        for gpu, (dnn, filling) in enumerate(zip(dnns, self.fill(dnns), strict=True)):
            members = list(_members(filling.clients))
            batch = _smallest_batch(self.problem, dnn, members)
            if grow_batches and members:
                batch = _grown_batch(self.problem, dnn, members, batch)
            gpus.append(GpuPlan(dnn, batch))
            for client in members:
                clients[client] = gpu
        return check(self.problem, Plan(tuple(gpus), tuple(clients), 0.0, 0.0))

    def _filling(self, dnn: int, left: int) -> Filling:
        key = dnn, left
        if key not in self._fillings:
            rows = [row for row in self._rows[dnn] if left >> row.client & 1]
            taken = _knapsack(rows)
            clients = sum(1 << client for client in taken)
            self._fillings[key] = Filling(clients, self.problem.total_fps(taken))
        return self._fillings[key]


def map_clients(problem: Problem, dnns: Sequence[int], *, grow_batches: bool = False) -> Plan:
    """Return the published mapping of `problem`'s clients when GPU g runs DNN `dnns[g]`."""
    return Mapper(problem).plan(dnns, grow_batches=grow_batches)


def _knapsack(rows: Sequence[_Row]) -> list[int]:
    """Return the clients that fill a GPU best, among the first n of `rows` for any n.

    Rows come by budget, largest first, so that capacities do not rise: to take in a row's client
    means to live with its capacity. Value and weight are both the frame rate, so the dynamic
    program's table is one bit set per row: bit w is set where some of the rows so far weigh w.
    """
    reachable = [1]
    best_weight = best_rows = 0
    for n, row in enumerate(rows, start=1):
        sums = reachable[-1]
        if row.weight <= row.capacity:
            sums |= sums << row.weight
        sums &= (1 << row.capacity + 1) - 1
        reachable.append(sums)
        if sums.bit_length() - 1 > best_weight:
            best_weight, best_rows = sums.bit_length() - 1, n
        if best_weight >= row.capacity:
            break  # later rows have no more room
    return _trace_back(rows[:best_rows], reachable, best_weight)


def _trace_back(rows: Sequence[_Row], reachable: Sequence[int], weight: int) -> list[int]:
    """Return clients of `rows` that weigh `weight`, without each that can be done without."""
    taken = []
    for n in reversed(range(len(rows))):
        if not reachable[n] >> weight & 1:
            taken.append(rows[n].client)
            weight -= rows[n].weight
    return taken


def _all_rows(problem: Problem) -> list[list[_Row]]:
    """Return per DNN the clients that it can serve at all, by budget, ties in client order."""
    throughput = problem.profile.throughput
    weights = _weights(problem)
    unit = gcd(*weights.values()) or 1
    carried = _carried(throughput, len(weights)) // unit
    batch = np.minimum(problem.largest_batch, _useful_batch(throughput))  # (C, M)
    by_budget = np.argsort(-problem.budget_ms, axis=0, kind="stable")  # (C, M)
    return [
        [
            _Row(client, weights[client] // unit, int(carried[dnn, batch[client, dnn] - 1]))
            for client in by_budget[:, dnn].tolist()
            if client in weights and batch[client, dnn] > 0
        ]
        for dnn in range(problem.profile.dnns)
    ]


def _weights(problem: Problem) -> dict[int, int]:
    """Return the frame rates in hundredths, rounded up, of clients that a GPU can keep up with.

    Whoever is too fast for any GPU takes no part; it must not coarsen or overflow the units.
    """
    fastest = problem.profile.throughput.max()
    return {
        client: max(1, ceil(fps / RESOLUTION_FPS - ROUNDING))
        for client, fps in enumerate(problem.fps.tolist())
        if 0 < fps < fastest
    }


def _carried(throughput: FloatArray, clients: int) -> NDArray[np.int64]:
    """Return (M, B) the most hundredths of a frame per second that stay below the throughput."""
    slack = (clients + 1) * ROUNDING  # frame rates may have been rounded down by that much
    whole: NDArray[np.int64] = np.ceil(throughput / RESOLUTION_FPS - slack).astype(np.int64) - 1
    return np.maximum(0, whole)


def _useful_batch(throughput: FloatArray) -> NDArray[np.int64]:
    """Return (M,) the last batch size before throughput first drops."""
    drops = np.diff(throughput, axis=1) < 0
    end = np.full((len(throughput), 1), True)  # for argmax to find where nothing drops
    batches: NDArray[np.int64] = np.argmax(np.hstack([drops, end]), axis=1) + 1
    return batches


def _members(clients: int) -> Iterable[int]:
    while clients:
        lowest = clients & -clients
        yield lowest.bit_length() - 1
        clients ^= lowest


def _smallest_batch(problem: Problem, dnn: int, members: Sequence[int]) -> int:
    keeps_up = problem.profile.throughput[dnn] > problem.total_fps(members)
    return int(np.argmax(keeps_up)) + 1


def _grown_batch(problem: Problem, dnn: int, members: Sequence[int], batch: int) -> int:
    """Return `batch` enlarged while the next size is as feasible, to one below the maximum."""
    budget = min(problem.budget_ms[i, dnn] for i in members)
    fps = problem.total_fps(members)
    latency, throughput = problem.profile.latency_ms[dnn], problem.profile.throughput[dnn]
    while (
        batch < problem.profile.max_batch - 1
        and BATCHES_IN_BUDGET * latency[batch] <= budget
        and throughput[batch] > fps
    ):
        batch += 1
    return batch
