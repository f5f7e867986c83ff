"""When GPUs cannot serve everybody: as many clients as can be, whatever that costs in accuracy.

Of two clients that a GPU can serve, the one that sends less leaves more room. So small ones take
the places of larger ones, GPUs are planned anew as if all DNNs were equally accurate, which brings
what room there is into one place, and clients who wait are put there. Where that ends, some GPUs
are emptied and filled again, by chance, and so on.
"""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import (
    LATER,
    ROUNDS,
    UNAVOIDABLE,
    Scratch,
    State,
    Task,
    constant,
)
from jellyfish.scheduling.kernels.building import build, draw
from jellyfish.scheduling.kernels.compiling import compiled, inlined
from jellyfish.scheduling.kernels.moving import (
    RUINED,
    add,
    copy,
    insert,
    keep,
    pick,
    remove,
    touch,
)
from jellyfish.scheduling.kernels.pairs import index

SMALLER, LARGER = constant(1), constant(-1)  # whom to exchange a client for
ROUNDING = 1e-9  # relative
FAILURES = 8  # clients for whom room was sought in vain before no more is sought
APART = 4  # places in the row of GPUs between two that are planned anew for a client, at most


@compiled
def unavoidable(task: Task, gpus: int) -> int:
    """Return how many clients at least must wait: were they divisible, each on its fastest DNN."""
    kinds, clients = task.kinds, len(task.weight)
    takes = np.empty(clients)
    for i in range(clients):
        k = kinds.of[i]
        fastest = kinds.wish[k, kinds.wishes[k] - 1]
        takes[i] = task.weight[i] * kinds.share[k, fastest]
    takes.sort()
    room = gpus * (1.0 + ROUNDING)
    for a in range(clients):
        room -= takes[a]
        if room < 0:
            return clients - a
    return 0


@compiled
def exchange(task: Task, state: State, g: int, sign: int) -> bool:
    """Give a client's place on GPU g to one who waits: with `sign` SMALLER or LARGER.

    Of all that are possible it is the one that changes most.
    """
    m, count = state.dnn[g], state.filled[g]
    load, least, second = 0, task.capacity.shape[1], task.capacity.shape[1]
    for c in range(count):
        i = state.members[g, c]
        load += task.weight[i]
        batch = task.batch[i, m]
        if batch < least:
            least, second = batch, least
        elif batch < second:
            second = batch
    most, leaves, comes = 0, -1, -1
    waiting = state.waiting[len(task.weight)]
    for a in range(waiting):
        w = state.waiting[a]
        able, size = task.batch[w, m], task.weight[w]
        if able == 0:
            continue
        for c in range(count):
            i = state.members[g, c]
            gain = sign * (task.weight[i] - size)
            if gain > most:
                batch = min(able, second if task.batch[i, m] == least else least)
                if load + size - task.weight[i] <= task.capacity[m, batch]:
                    most, leaves, comes = gain, c, a
    if leaves < 0:
        return False
    out = remove(state, g, leaves)
    add(task, state, g, state.waiting[comes])
    state.waiting[comes] = out
    index(task, state, g)
    return True


@compiled
def exchange_all(task: Task, state: State, sign: int) -> bool:
    """Exchange clients while that is possible; tell whether anything changed."""
    changed = False
    for g in range(len(state.filled)):
        while exchange(task, state, g, sign):
            touch(task, state, g, LATER)
            changed = True
    return changed


@inlined
def press(task: Task, flat: Task, state: State, best: State, s: Scratch) -> None:
    """Go on from a plan of which no two GPUs, planned anew, have more room.

    `flat` is the task with equally accurate DNNs.
    """
    clients = len(task.weight)
    if _insert_some(flat, state, s):
        return
    keep(task, state, best)
    state.numbers[ROUNDS] -= 1
    if best.waiting[clients] <= state.numbers[UNAVOIDABLE]:
        state.numbers[ROUNDS] = 0
    if state.numbers[ROUNDS] == 0 or state.waiting[clients] > best.waiting[clients]:
        restore(task, best, state)
    if state.numbers[ROUNDS] > 0:
        _shake(task, state)


@compiled
def restore(task: Task, best: State, state: State) -> None:
    """Go back to the best plan."""
    copy(best, state)
    for g in range(len(state.filled)):
        index(task, state, g)
        touch(task, state, g, LATER)


@inlined
def _insert_some(flat: Task, state: State, s: Scratch) -> bool:
    """Put those who wait where there is room, small ones first; tell whether there was any."""
    clients = len(flat.weight)
    gpus = np.arange(len(state.filled))
    waiting = state.waiting[: state.waiting[clients]].copy()
    failed, left = state.waiting, 0
    for i in waiting[np.argsort(flat.weight[waiting], kind="mergesort")]:
        apart = max(1, min(APART, len(gpus) // 2))
        for a in range(min(left, FAILURES)):
            if left >= FAILURES or (flat.batch[i] <= flat.batch[failed[a]]).all():
                apart = 0  # one no larger, with as much choice, found no room
                break
        while apart > 0 and not insert(flat, state, i, gpus, apart, s):
            apart -= 1
        if apart == 0:
            failed[left] = i
            left += 1
    state.waiting[clients] = left
    return left < len(waiting)


@inlined
def _shake(task: Task, state: State) -> None:
    """Empty some GPUs and fill them anew, by chance, with those who wait."""
    clients = len(task.weight)
    picked = np.empty(min(RUINED, len(state.filled)), np.int64)
    pick(state, picked)
    n = state.waiting[clients]
    ids = np.empty(clients, np.int64)
    ids[:n] = state.waiting[:n]
    for g in picked:
        count = state.filled[g]
        ids[n : n + count] = state.members[g, :count]
        n += count
    tries = 1 + draw(state.random, task.capacity.shape[1])
    left = build(task, state, ids, n, picked, 0.0, tries, float(draw(state.random, 3)))
    state.waiting[:left] = ids[:left]
    state.waiting[clients] = left
    for g in picked:
        touch(task, state, int(g), LATER)
    exchange_all(task, state, SMALLER)
