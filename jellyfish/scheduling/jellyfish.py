"""The default scheduler: a first plan guided by prices, then improved for as long as it may.

The relaxation in which clients are divisible has one multiplier, the price of a GPU. It guides the
first plan, GPU by GPU. Then every two GPUs are planned anew, exactly, until no two can do better;
then a few at a time are emptied and filled again. Where not all clients can be served, the plan
that serves most comes first.
"""

from __future__ import annotations

import numpy as np

from jellyfish.profile import FloatArray
from jellyfish.scheduling.kernels.arrays import (
    BOUND,
    CROWD,
    NUMBERS,
    UNAVOIDABLE,
    Ints,
    Scratch,
    State,
    Task,
)
from jellyfish.scheduling.kernels.describing import describe
from jellyfish.scheduling.kernels.moving import RUINED, keep
from jellyfish.scheduling.kernels.searching import advance, begin
from jellyfish.scheduling.placing import as_now, place
from jellyfish.scheduling.problem import Budget, Plan, Problem
from jellyfish.scheduling.staying import Group

EFFORT = 1000  # steps unless told; a pair of GPUs planned anew is one
PATIENCE = 3  # times that, while it is not certain that no plan serves more clients
STEPS_AT_ONCE = 50  # between two looks at the clock
HUNDREDTHS = 100.0
CLOSE = 1e-12  # relative; what rounding may add to a sum of frame rates


def solve(problem: Problem, seed: int, budget: Budget = None, *, grow_batches: bool = True) -> Plan:
    """Return a plan; the better, the more steps or time `budget` allows.

    Args:
        problem: clients, GPUs and what these run now.
        seed: of the order in which GPUs are emptied and filled again.
        budget: steps, or whom to ask every now and then whether to go on.
        grow_batches: as in `placing.place`.
    """
    served = np.flatnonzero(problem.servable)
    if not problem.gpus or not len(served):
        return place(problem, [], grow_batches=grow_batches)
    order = np.argsort(problem.profile.accuracy, kind="stable")
    state = _run(_task(problem, served, order), min(problem.gpus, len(served)), seed, budget)
    groups: list[Group] = [
        (int(order[dnn]), served[members[:count]].tolist())
        for dnn, count, members in zip(state.dnn, state.filled, state.members, strict=True)
    ]
    found = place(problem, groups, grow_batches=grow_batches)
    now = as_now(problem, grow_batches=grow_batches)
    if now is None or _rank(now) < _rank(found):
        return found
    return now


def _rank(plan: Plan) -> tuple[float, float]:
    """Return what plans are compared by, without what rounding may add."""
    return plan.effectiveness, round(plan.accuracy, 12)


def accuracy_bound(problem: Problem) -> float:
    """Return an accuracy that no plan exceeds which serves every servable client."""
    served = np.flatnonzero(problem.servable)
    if not problem.gpus or not len(served):
        return 0.0
    order = np.argsort(problem.profile.accuracy, kind="stable")
    task = _task(problem, served, order)
    state = _run(task, min(problem.gpus, len(served)), 0, 0)
    best = float(problem.profile.accuracy.max())
    return min(best, float(state.numbers[BOUND]) / float(task.weight.sum()))


def warm() -> None:
    """Compile or load from disk what `solve` needs."""
    one = np.ones((2, 1), np.int64)
    task = describe(one[:, 0].copy(), one, np.array([[0, 2]]), np.ones(1))
    _run(task, 1, 0, 1)


def _run(task: Task, gpus: int, seed: int, budget: Budget) -> State:
    scratch = _scratch(task.capacity.size, len(task.weight))
    state, best = _state(task, gpus, seed), _state(task, gpus, seed)
    begin(task, state, best)
    advance(task, state, best, 0, scratch)
    if callable(budget):
        while budget() and not advance(task, state, best, STEPS_AT_ONCE, scratch):
            pass
    else:
        advance(task, state, best, EFFORT if budget is None else budget, scratch)
    keep(task, state, best)
    if budget is None and _may_serve_more(best, state):
        advance(task, state, best, EFFORT * (PATIENCE - 1), scratch)
        keep(task, state, best)
    return best


def _may_serve_more(best: State, state: State) -> bool:
    return bool(0 < best.waiting[-1] > state.numbers[UNAVOIDABLE])


def _state(task: Task, gpus: int, seed: int) -> State:
    clients, types = len(task.weight), task.capacity.shape
    return State(
        members=np.empty((gpus, clients), np.int64),
        filled=np.zeros(gpus, np.int64),
        dnn=np.zeros(gpus, np.int64),
        bits=np.empty((gpus, *types), np.int64),
        load=np.empty((gpus, *types), np.int64),
        loss=np.zeros(gpus),
        changed=np.zeros(gpus, np.int64),
        waiting=np.zeros(clients + 1, np.int64),
        worth=np.zeros(len(task.kinds.weight)),
        numbers=np.zeros(NUMBERS),
        order=np.zeros(gpus + 2, np.int64),
        random=np.array([(seed * 0x9E3779B97F4A7C15 + 1) & 0x3FFFFFFFFFFFFFFF | 1]),
    )


def _scratch(offers: int, clients: int) -> Scratch:
    who, line, sizes, bits, have, take, best, kept = np.zeros((8, CROWD + 2), np.int64)
    plans = np.zeros((offers, 5), np.int64), np.zeros((RUINED, clients + 2), np.int64)
    return Scratch(who, line, sizes, bits, have, take, best, kept, *plans)


def _task(problem: Problem, served: Ints, order: Ints) -> Task:
    """Return the problem in whole units, of the clients `served`, DNNs in `order`."""
    throughput = problem.profile.throughput[order]
    weight, unit = _weights(problem.fps[served], float(throughput.max()))
    carried = np.ceil(throughput / unit * (1 - CLOSE)) - 1
    capacity = np.zeros((len(order), throughput.shape[1] + 1), np.int64)
    # A GPU whose clients allow a batch of b can run any smaller one.
    capacity[:, 1:] = np.maximum.accumulate(np.minimum(carried, weight.sum()), axis=1)
    batch = problem.largest_batch[served[:, np.newaxis], order]
    return describe(weight, batch, capacity, problem.profile.accuracy[order])


def _weights(fps: FloatArray, fastest: float) -> tuple[Ints, float]:
    """Return frame rates in whole units, rounded up, and the unit."""
    hundredths = np.rint(fps * HUNDREDTHS)
    if fastest < 1e9 and np.abs(hundredths / HUNDREDTHS - fps).max() <= CLOSE * fps.min():
        weight = np.maximum(1, hundredths.astype(np.int64))
        unit = int(np.gcd.reduce(weight))
        return weight // unit, unit / HUNDREDTHS
    unit_fps = fastest * 2.0**-46  # fine enough not to matter, and sums stay whole numbers
    return np.maximum(1, np.ceil(fps / unit_fps)).astype(np.int64), unit_fps
