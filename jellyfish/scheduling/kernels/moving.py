"""Steps that every search is made of: plans copied, clients put onto GPUs, GPUs drawn."""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import (
    CLOCK,
    CROWD,
    LATER,
    PRICE,
    Ints,
    Scratch,
    State,
    Task,
)
from jellyfish.scheduling.kernels.building import draw
from jellyfish.scheduling.kernels.compiling import compiled
from jellyfish.scheduling.kernels.crowds import replan
from jellyfish.scheduling.kernels.pairs import index

RUINED = 3  # GPUs that are emptied and filled anew together


@compiled
def weigh(task: Task, state: State, g: int) -> None:
    """Work out what GPU g falls short of the bound."""
    loss = state.numbers[PRICE]
    for a in range(state.filled[g]):
        i = state.members[g, a]
        loss += task.weight[i] * (state.worth[task.kinds.of[i]] - task.accuracy[state.dnn[g]])
    state.loss[g] = loss


@compiled
def touch(task: Task, state: State, g: int, later: int) -> None:
    """Note that GPU g changed, at the time of the pair looked at now or `later`."""
    weigh(task, state, g)
    state.changed[g] = int(state.numbers[CLOCK]) + later


@compiled
def keep(task: Task, state: State, best: State) -> None:
    """Copy the plan to `best` if it serves more clients, or as many with more accuracy."""
    clients, gpus = len(task.weight), len(state.filled)
    waiting, least = state.waiting[clients], best.waiting[clients]
    if waiting > least:
        return
    if waiting == least:
        every = np.arange(gpus)
        if waiting > clients or earned(task, state, every) <= earned(task, best, every):
            return
    copy(state, best)


@compiled
def copy(state: State, to: State) -> None:
    """Copy a plan, but for what `index` notes."""
    clients = len(state.waiting) - 1
    to.filled[:], to.dnn[:], to.loss[:] = state.filled, state.dnn, state.loss
    for g in range(len(state.filled)):
        to.members[g, : state.filled[g]] = state.members[g, : state.filled[g]]
    waiting = state.waiting[clients]
    to.waiting[:waiting], to.waiting[clients] = state.waiting[:waiting], waiting


@compiled
def insert(task: Task, state: State, client: int, gpus: Ints, apart: int, s: Scratch) -> bool:
    """Find room for a client on one of `gpus`, or on two of them so many places apart."""
    n = len(gpus)
    for a in range(n):
        g, h = gpus[a], gpus[(a + apart) % n]
        if state.filled[g] >= CROWD // 2 and _squeeze(task, state, g, client):
            touch(task, state, g, LATER)
            return True
        if replan(task, state, g, h, client, s):
            touch(task, state, g, LATER)
            touch(task, state, h, LATER)
            return True
    return False


@compiled
def _squeeze(task: Task, state: State, g: int, client: int) -> bool:
    """Add a client to a crowded GPU if there is room without any change."""
    m, load = state.dnn[g], task.weight[client]
    batch = task.batch[client, m]
    for a in range(state.filled[g]):
        i = state.members[g, a]
        batch = min(batch, task.batch[i, m])
        load += task.weight[i]
    if load > task.capacity[m, batch]:
        return False
    add(task, state, g, client)
    index(task, state, g)
    return True


@compiled
def add(task: Task, state: State, g: int, client: int) -> None:
    """Put a client onto GPU g, among those who send as much."""
    place = state.filled[g]
    while place > 0 and task.weight[state.members[g, place - 1]] < task.weight[client]:
        state.members[g, place] = state.members[g, place - 1]
        place -= 1
    state.members[g, place] = client
    state.filled[g] += 1


@compiled
def remove(state: State, g: int, place: int) -> int:
    """Take a client from GPU g and return it."""
    client = state.members[g, place]
    for a in range(place, state.filled[g] - 1):
        state.members[g, a] = state.members[g, a + 1]
    state.filled[g] -= 1
    return int(client)


@compiled
def pick(state: State, picked: Ints) -> None:
    """Draw distinct GPUs, the first rather one that loses much."""
    gpus = len(state.filled)
    for k in range(len(picked)):
        while True:
            g = draw(state.random, gpus)
            if k == 0:
                other = draw(state.random, gpus)
                if state.loss[other] > state.loss[g]:
                    g = other
            if (picked[:k] != g).all():
                break
        picked[k] = g


@compiled
def earned(task: Task, state: State, gpus: Ints) -> float:
    """Return the accuracy of `gpus`, weighted with frame rates."""
    total = 0.0
    for g in gpus:
        for a in range(state.filled[g]):
            total += task.accuracy[state.dnn[g]] * task.weight[state.members[g, a]]
    return total
