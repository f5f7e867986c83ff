"""From groups of clients that share a GPU to a plan, with its batch sizes and its worth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from math import fsum

import numpy as np

from jellyfish.profile import Profile
from jellyfish.scheduling.problem import BATCHES_IN_BUDGET, GpuPlan, Plan, Problem
from jellyfish.scheduling.staying import Group, gpus_of, groups_now, sent_home


def place(problem: Problem, groups: Sequence[Group], *, grow_batches: bool = True) -> Plan:
    """Return the plan in which each of `groups` has a GPU; empty groups need none.

    GPUs keep the DNNs they hold and clients their GPUs where that changes nothing else. Batches are
    the smallest that keep up; grown, they are as large as deadlines and the rate allow, so that a
    GPU that fell behind catches up. Feasible groups give a feasible plan.
    """
    groups = sorted((dnn, sorted(members)) for dnn, members in groups if len(members))
    where = gpus_of(problem, groups)
    if problem.initial_gpus:
        groups = sent_home(problem, groups, where, _batches(problem, groups, grow=False))
    return plan_of(problem, groups, where, grow_batches)


def as_now(problem: Problem, *, grow_batches: bool = True) -> Plan | None:
    """Return the plan in which nothing moves; None where it is not known, or breaks a rule."""
    now = groups_now(problem)
    groups = list(now.values())
    for (dnn, members), batch in zip(groups, _batches(problem, groups, grow=False), strict=True):
        rate = problem.total_fps(members)
        if problem.largest_batch[members, dnn].min() < batch:
            return None
        if problem.profile.throughput[dnn, batch - 1] <= rate:
            return None
    return plan_of(problem, groups, list(now), grow_batches) if groups else None


def plan_of(
    problem: Problem, groups: Sequence[Group], where: Sequence[int], grow_batches: bool = True
) -> Plan:
    """Return the plan in which `groups`, none of them empty, have the GPUs `where`."""
    gpus: list[GpuPlan | None] = [None] * problem.gpus
    clients: list[int | None] = [None] * problem.clients
    batches = _batches(problem, groups, grow_batches)
    for gpu, (dnn, members), batch in zip(where, groups, batches, strict=True):
        gpus[gpu] = GpuPlan(dnn, batch)
        for client in members:
            clients[client] = gpu
    return Plan(tuple(gpus), tuple(clients), *_worth(problem, groups))


def _worth(problem: Problem, groups: Sequence[Group]) -> tuple[float, float]:
    servable = np.flatnonzero(problem.servable)
    if not len(servable):
        return 1.0, 0.0
    mapped, dnn = _columns(groups)
    earned = problem.fps[mapped] * problem.profile.accuracy[dnn]
    # Each rounded, then added without more of it: the same, whatever the order.
    return len(mapped) / len(servable), fsum(earned.tolist()) / fsum(problem.fps[servable].tolist())


def _columns(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Return who is mapped, group by group, and to which DNN."""
    mapped = np.array([i for _, members in groups for i in members], np.int64)
    sizes = [len(members) for _, members in groups]
    return mapped, np.repeat(np.array([dnn for dnn, _ in groups], np.int64), sizes)


def _batches(problem: Problem, groups: Sequence[Group], grow: bool) -> list[int]:
    """Return the batch size of each group's GPU."""
    if not groups:
        return []
    mapped, dnn = _columns(groups)
    ends = list(accumulate(len(members) for _, members in groups))
    rates = problem.fps[mapped].tolist()
    budgets = np.minimum.reduceat(problem.budget_ms[mapped, dnn], [0, *ends[:-1]]).tolist()
    cost, throughput = _tables(problem.profile)
    return [
        _batch(throughput[m], cost[m], fsum(rates[start:end]), budget if grow else 0.0)
        for (m, _), (start, end), budget in zip(groups, pairwise([0, *ends]), budgets, strict=True)
    ]


@lru_cache(maxsize=4)  # a solve asks several times
def _tables(profile: Profile) -> tuple[list[list[float]], list[list[float]]]:
    """Return what batches cost of a budget, and how many frames/s they carry, as lists."""
    return (BATCHES_IN_BUDGET * profile.latency_ms).tolist(), profile.throughput.tolist()


def _batch(throughput: list[float], cost: list[float], fps: float, budget: float) -> int:
    """Return the smallest batch that keeps up, or what it may grow to."""
    batch = next((b for b, carried in enumerate(throughput, start=1) if carried > fps), 1)
    while batch < len(cost) and cost[batch] <= budget and throughput[batch] > fps:
        batch += 1
    return batch
