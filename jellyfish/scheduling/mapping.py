"""The published mapping of clients to GPUs whose DNNs are given: a knapsack per GPU.

RTSS 2022, section IV, with every detail of the published implementation. GPUs choose in turn, the
one with the most accurate DNN first, each the set of remaining clients whose frame rates fill it
best. Frame rates need not be multiples of 5 here, which the published unit was.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from jellyfish.profile import FloatArray
from jellyfish.scheduling.kernels.filling import NOBODY, Knapsack, Rows, Words, fill
from jellyfish.scheduling.problem import BATCHES_IN_BUDGET, GpuPlan, Plan, Problem, check

RESOLUTION_FPS = 0.01
ROUNDING = 1e-6  # what a frame rate may be off its hundredth without counting as the next
FINEST = 2.0**-46  # of the largest throughput, so that sums of units stay whole numbers
MOST_UNITS = 1 << 20  # of what a GPU carries: some 10 000 frames/s in hundredths
WORD = 64  # bits

Ints = NDArray[np.int64]


def map_clients(problem: Problem, dnns: Sequence[int], *, grow_batches: bool = False) -> Plan:
    """Return the published mapping of `problem`'s clients when GPU g runs DNN `dnns[g]`.

    Args:
        problem: clients and GPUs.
        dnns: (G,) DNN of each GPU.
        grow_batches: enlarge batches beyond what the frame rates need, as when serving.
    """
    return plan(problem, rows_of(problem), dnns, grow_batches=grow_batches)


def plan(problem: Problem, rows: Rows, dnns: Sequence[int], *, grow_batches: bool) -> Plan:
    """Return what `map_clients` does, of a problem whose `rows` are known."""
    runs = np.array(dnns, np.int64)
    # GPUs choose in the order of their DNNs' accuracy, then of their own.
    turns = np.argsort(-rows.accuracy[runs], kind="stable")
    taken_by = fill(rows, runs, turns, everybody(problem), knapsack(rows)).tolist()
    members: list[list[int]] = [[] for _ in dnns]
    for client, gpu in enumerate(taken_by):
        if gpu != NOBODY:
            members[gpu].append(client)
    gpus = []
    for dnn, served in zip(dnns, members, strict=True):
        batch = _smallest_batch(problem, dnn, served)
        if grow_batches and served:
            batch = _grown_batch(problem, dnn, served, batch)
        gpus.append(GpuPlan(dnn, batch))
    clients = tuple(None if gpu == NOBODY else gpu for gpu in taken_by)
    return check(problem, Plan(tuple(gpus), clients, 0.0, 0.0))


def everybody(problem: Problem) -> Words:
    """Return the set of all clients."""
    return np.full(problem.clients // WORD + 1, -1, np.int64).view(np.uint64)


def knapsack(rows: Rows) -> Knapsack:
    """Return room for the knapsacks of `rows`."""
    units = int(rows.capacity.max(initial=0)) + 1
    return Knapsack(
        sums=np.zeros(units // WORD + 1, np.uint64),
        last=np.empty(units, np.int64),
        taken=np.empty(len(rows.weight), np.int64),
    )


def rows_of(problem: Problem) -> Rows:
    """Return per DNN the clients that it can serve at all, by budget, ties in client order."""
    throughput = problem.profile.throughput
    resolution = max(RESOLUTION_FPS, float(throughput.max()) * FINEST)
    weight = _weights(problem, resolution)
    carried = _carried(throughput, weight, resolution)  # (M, B)
    unit = max(int(np.gcd.reduce(weight)), -(-int(carried.max()) // MOST_UNITS), 1)
    batch = np.minimum(problem.largest_batch, _useful_batch(throughput))  # (C, M)
    takes_part = (batch > 0) & (weight > 0)[:, np.newaxis]
    # Those who take no part come last.
    order = np.argsort(np.where(takes_part, -problem.budget_ms, np.inf), axis=0, kind="stable")
    capacity = (carried // unit)[np.arange(len(carried)), batch - 1]  # (C, M)
    servable = np.flatnonzero(problem.budget_ms[:, 0] > 0).tolist()
    return Rows(
        client=order.T.copy(),
        counts=takes_part.sum(axis=0),
        capacity=np.take_along_axis(capacity, order, axis=0).T.copy(),
        weight=-(-weight // unit),
        fps=problem.fps.copy(),
        accuracy=problem.profile.accuracy.copy(),
        order=np.argsort(-problem.profile.accuracy, kind="stable"),
        servable=np.array([len(servable), problem.total_fps(servable)]),
    )


def _weights(problem: Problem, resolution: float) -> Ints:
    """Return (C,) frame rates in units of `resolution`, rounded up; 0 where no GPU can keep up.

    Whoever is too fast for any GPU takes no part; it must not coarsen or overflow the units.
    """
    fastest = problem.profile.throughput.max()
    return np.array(
        [
            max(1, ceil(fps / resolution - ROUNDING)) if 0 < fps < fastest else 0
            for fps in problem.fps.tolist()
        ],
        np.int64,
    )


def _carried(throughput: FloatArray, weight: Ints, resolution: float) -> Ints:
    """Return (M, B) the most units of `resolution` that stay below the throughput."""
    # Frame rates may have been rounded down by that much; and there is no more than all of them.
    slack = (np.count_nonzero(weight) + 1) * ROUNDING
    whole = np.ceil(throughput / resolution - slack) - 1
    most: Ints = np.clip(whole, 0, weight.sum()).astype(np.int64)
    return most


def _useful_batch(throughput: FloatArray) -> NDArray[np.int64]:
    """Return (M,) the last batch size before throughput first drops."""
    drops = np.diff(throughput, axis=1) < 0
    end = np.full((len(throughput), 1), True)  # for argmax to find where nothing drops
    batches: NDArray[np.int64] = np.argmax(np.hstack([drops, end]), axis=1) + 1
    return batches


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
