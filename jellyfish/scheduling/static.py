"""No scheduling: the same DNN on every GPU, clients in turn. What adapts is measured against it."""

from __future__ import annotations

import numpy as np

from jellyfish.backoff import FIXED_PX, nearest_px
from jellyfish.scheduling.problem import Budget, GpuPlan, Plan, Problem


def solve(problem: Problem, seed: int, budget: Budget = None) -> Plan:
    """Return the plan; it asks neither for deadlines nor for rates, so it may be infeasible."""
    sizes = [int(px) for px in problem.profile.input_px]
    dnn = sizes.index(nearest_px(sizes, FIXED_PX))
    gpus: list[GpuPlan | None] = []
    for gpu in range(problem.gpus):
        members = list(range(gpu, problem.clients, problem.gpus))
        keeps_up = problem.profile.throughput[dnn] > problem.total_fps(members)
        batch = int(np.argmax(keeps_up)) + 1 if keeps_up.any() else problem.profile.max_batch
        gpus.append(GpuPlan(dnn, batch) if members else None)
    clients = tuple(i % problem.gpus if problem.gpus else None for i in range(problem.clients))
    return Plan(tuple(gpus), clients, 1.0, float(problem.profile.accuracy[dnn]))
