"""From groups of clients that share a GPU to a plan: GPUs keep the DNNs they hold if they can."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import fsum

import numpy as np

from jellyfish.scheduling.problem import BATCHES_IN_BUDGET, GpuPlan, Plan, Problem

Group = tuple[int, Sequence[int]]  # a DNN, and the clients that one GPU serves with it


def place(problem: Problem, groups: Sequence[Group], *, grow_batches: bool = True) -> Plan:
    """Return the plan in which each of `groups` has a GPU; empty groups need none.

    Batches are the smallest that keep up; grown, they are as large as deadlines and the rate
    allow, so that a GPU that fell behind catches up. Feasible groups give a feasible plan.
    """
    groups = sorted((dnn, sorted(members)) for dnn, members in groups if len(members))
    gpus: list[GpuPlan | None] = [None] * problem.gpus
    clients: list[int | None] = [None] * problem.clients
    accuracy: list[float] = problem.profile.accuracy.tolist()
    earned: list[float] = []
    for gpu, (dnn, members) in zip(_gpus_of(problem, groups), groups, strict=True):
        rates = problem.fps[members].tolist()
        gpus[gpu] = GpuPlan(dnn, _batch(problem, dnn, members, fsum(rates), grow_batches))
        earned += [fps * accuracy[dnn] for fps in rates]
        for client in members:
            clients[client] = gpu
    servable: list[int] = np.flatnonzero(problem.servable).tolist()
    if not servable:
        return Plan(tuple(gpus), tuple(clients), 1.0, 0.0)
    served = fsum(earned) / problem.total_fps(servable)
    return Plan(tuple(gpus), tuple(clients), len(earned) / len(servable), served)


def _gpus_of(problem: Problem, groups: Sequence[Group]) -> list[int]:
    """Return a GPU for each group, of those that hold the group's DNN where there are any."""
    holding: dict[int, list[int]] = defaultdict(list)
    for gpu in reversed(range(problem.gpus)):
        holding[problem.start_dnns[gpu]].append(gpu)
    found = [holding[dnn].pop() if holding[dnn] else None for dnn, _ in groups]
    left = sorted((gpu for gpus in holding.values() for gpu in gpus), reverse=True)
    return [left.pop() if gpu is None else gpu for gpu in found]


def _batch(problem: Problem, dnn: int, members: Sequence[int], fps: float, grow: bool) -> int:
    throughput = problem.profile.throughput[dnn]
    batch = int(np.argmax(throughput > fps)) + 1
    if not grow:
        return batch
    latency = problem.profile.latency_ms[dnn]
    budget = problem.budget_ms[members, dnn].min()
    while (
        batch < problem.profile.max_batch
        and BATCHES_IN_BUDGET * latency[batch] <= budget
        and throughput[batch] > fps
    ):
        batch += 1
    return batch
