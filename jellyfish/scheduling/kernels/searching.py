"""The search: plans from several starts, pairs of GPUs planned anew, a few emptied and refilled.

A start fills all GPUs one by one; then every two GPUs are planned anew until no two can do better.
Where that ends depends on the start, so there are some, with other prices and by chance; the best
of them is kept, and then improved three GPUs at a time.
"""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import CROWD, NEAR, Ints, Scratch, State, Task
from jellyfish.scheduling.kernels.building import bagged, build, draw, price
from jellyfish.scheduling.kernels.compiling import compiled
from jellyfish.scheduling.kernels.pairs import index, replan

RUINED = 3  # GPUs that are emptied and filled anew together
RUIN_STEPS = 20  # what that costs, in pairs of GPUs planned anew
START_STEPS = 3  # what a start costs per GPU
STARTS = 16


@compiled
def _weigh(task: Task, state: State, g: int) -> None:
    """Work out what GPU g falls short of the bound."""
    loss = state.numbers[0]
    for a in range(state.filled[g]):
        i = state.members[g, a]
        loss += task.weight[i] * (state.worth[task.kinds.of[i]] - task.accuracy[state.dnn[g]])
    state.loss[g] = loss


@compiled
def _touch(task: Task, state: State, g: int, later: int) -> None:
    """Note that GPU g changed, at the time of the pair looked at now or `later`."""
    _weigh(task, state, g)
    state.changed[g] = int(state.numbers[1]) + later


@compiled
def begin(task: Task, state: State, best: State, s: Scratch) -> None:
    """Make the first plan, and the bound that prices allow."""
    clients, gpus = len(task.weight), len(state.filled)
    ids = np.arange(clients)
    bag = bagged(task.kinds, ids, clients)
    start = 0.2 * task.accuracy[-1] * task.capacity.max() + NEAR
    now = price(task, bag, gpus, start, 1e-3)
    state.worth[:] = bag.worth
    state.numbers[0], state.numbers[2] = now, now * gpus
    for a in range(bag.size[0]):
        k = bag.kinds[a]
        state.numbers[2] += task.kinds.weight[k] * bag.left[k] * bag.worth[k]
    state.waiting[clients] = best.waiting[clients] = clients + 1  # worse than any plan
    best.numbers[:] = state.numbers
    _start(task, state, best, s)


@compiled
def _start(task: Task, state: State, best: State, s: Scratch) -> None:
    """Make a plan from nothing; keep the one there was if it is the best so far."""
    keep(task, state, best)
    clients, gpus, now = len(task.weight), len(state.filled), int(state.numbers[3])
    spare, tries, noise = 0.0, 4, 0.0
    if now > 0:
        spare, tries = 0.15 * draw(state.random, 4), 1 + draw(state.random, 4)
        noise = 1.0 + draw(state.random, 5)
    ids = np.arange(clients)
    left = build(task, state, ids, clients, np.arange(gpus), spare, tries, noise)
    for g in range(gpus):
        _weigh(task, state, g)
    state.order[:gpus] = np.argsort(-state.loss)
    state.order[gpus], state.order[gpus + 1] = 0, 0
    state.numbers[1] += gpus * (gpus - 1) // 2
    state.changed[:] = int(state.numbers[1]) + 1
    by_weight = np.argsort(task.weight[ids[:left]])
    waiting = 0
    for a in range(left):
        i = ids[by_weight[a]]
        if not _insert(task, state, i, state.order[:gpus], s):
            state.waiting[waiting] = i
            waiting += 1
    state.waiting[clients] = waiting
    if gpus == 1 and replan(task, state, 0, 0, -1, s):  # there is no pair that would be
        _touch(task, state, 0, 1)
    state.numbers[3] += 1


@compiled
def keep(task: Task, state: State, best: State) -> None:
    """Copy the plan to `best` if it serves more clients, or as many with more accuracy."""
    clients, gpus = len(task.weight), len(state.filled)
    waiting, least = state.waiting[clients], best.waiting[clients]
    if waiting > least:
        return
    if waiting == least:
        every = np.arange(gpus)
        if waiting > clients or _earned(task, state, every) <= _earned(task, best, every):
            return
    _copy(state, best)


@compiled
def _copy(state: State, to: State) -> None:
    clients = len(state.waiting) - 1
    to.filled[:], to.dnn[:], to.loss[:] = state.filled, state.dnn, state.loss
    for g in range(len(state.filled)):
        to.members[g, : state.filled[g]] = state.members[g, : state.filled[g]]
    waiting = state.waiting[clients]
    to.waiting[:waiting], to.waiting[clients] = state.waiting[:waiting], waiting


@compiled
def _insert(task: Task, state: State, client: int, gpus: Ints, s: Scratch) -> bool:
    """Find room for a client on one of `gpus`, or on two neighbours of them."""
    n = len(gpus)
    for a in range(n):
        g, h = gpus[a], gpus[(a + 1) % n]
        if state.filled[g] >= CROWD // 2 and _squeeze(task, state, int(g), client):
            _touch(task, state, g, 1)
            return True
        if replan(task, state, g, h, client, s):
            _touch(task, state, g, 1)
            _touch(task, state, h, 1)
            return True
    return False


@compiled
def _squeeze(task: Task, state: State, g: int, client: int) -> bool:
    """Add a client to a crowded GPU if there is room without any change."""
    m, load = state.dnn[g], task.weight[client]
    batch, place = task.batch[client, m], 0
    for a in range(state.filled[g]):
        i = state.members[g, a]
        batch = min(batch, task.batch[i, m])
        load += task.weight[i]
        if task.weight[i] >= task.weight[client]:
            place = a + 1
    if load > task.capacity[m, batch]:
        return False
    for a in range(state.filled[g], place, -1):
        state.members[g, a] = state.members[g, a - 1]
    state.members[g, place] = client
    state.filled[g] += 1
    index(task, state, g)
    return True


@compiled
def advance(task: Task, state: State, best: State, steps: int, s: Scratch) -> int:
    """Improve the plan by so many steps; return how many were not needed.

    `best` is the best plan of the starts before this one.
    """
    clients, gpus = len(task.weight), len(state.filled)
    while steps > 0:
        g, h = _next_pair(state)
        if g >= 0:
            if replan(task, state, g, h, -1, s):
                _touch(task, state, g, 0)
                _touch(task, state, h, 0)
            steps -= 1
        elif state.waiting[clients] == 0 and gpus < 3:
            break  # one pair is all there is
        elif state.numbers[3] < STARTS:
            _start(task, state, best, s)
            steps -= START_STEPS * gpus
        elif state.numbers[3] == STARTS:
            keep(task, state, best)
            _copy(best, state)
            for g in range(gpus):
                index(task, state, g)
            state.numbers[3] += 1
        else:
            _ruin(task, state, s)
            steps -= RUIN_STEPS
    return max(0, steps)


@compiled
def _next_pair(state: State) -> tuple[int, int]:
    """Return the next two GPUs of which one changed since they were looked at; -1 for none."""
    gpus = len(state.filled)
    pairs = gpus * (gpus - 1) // 2
    for _ in range(pairs):
        state.order[gpus] += 1
        if state.order[gpus] >= state.order[gpus + 1]:
            state.order[gpus] = 0
            state.order[gpus + 1] = state.order[gpus + 1] % (gpus - 1) + 1
        state.numbers[1] += 1
        g, h = state.order[state.order[gpus]], state.order[state.order[gpus + 1]]
        since = int(state.numbers[1]) - pairs
        news = state.changed[g] > since or state.changed[h] > since
        if news and state.loss[g] + state.loss[h] > NEAR * state.numbers[0]:
            return g, h
    return -1, -1


@compiled
def _pick(state: State, picked: Ints) -> None:
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
def _earned(task: Task, state: State, gpus: Ints) -> float:
    earned = 0.0
    for g in gpus:
        for a in range(state.filled[g]):
            earned += task.accuracy[state.dnn[g]] * task.weight[state.members[g, a]]
    return earned


@compiled
def _ruin(task: Task, state: State, s: Scratch) -> None:
    """Empty some GPUs, fill them anew, with clients that wait; undo that if it was no good."""
    clients = len(task.weight)
    picked = np.empty(min(RUINED, len(state.filled)), np.int64)
    _pick(state, picked)
    ids, n = np.empty(clients, np.int64), 0
    for k, g in enumerate(picked):
        count = state.filled[g]
        s.saved[k, 0], s.saved[k, 1] = state.dnn[g], count
        for a in range(count):
            ids[n] = s.saved[k, 2 + a] = state.members[g, a]
            n += 1
    earned = _earned(task, state, picked)
    waiting = state.waiting[clients]
    most = 2 + draw(state.random, 2) * (n + 3)  # a few for a gap, or as many as there are already
    invited = min(waiting, 1 + draw(state.random, most))
    for a in range(invited):  # to the end of those who wait
        b = waiting - 1 - a
        c = draw(state.random, b + 1)
        state.waiting[b], state.waiting[c] = state.waiting[c], state.waiting[b]
        ids[n] = state.waiting[b]
        n += 1
    spare, tries = draw(state.random, 60) / 100, 1 + draw(state.random, 4)
    left = build(task, state, ids, n, picked, spare, tries, 0.5)
    missing = 0
    for a in range(left):
        if missing > invited or not _insert(task, state, ids[a], picked, s):
            ids[missing] = ids[a]
            missing += 1
    if missing <= invited:
        for _ in range(2):
            for a in range(len(picked)):
                for b in range(a):
                    replan(task, state, picked[a], picked[b], -1, s)
    better = _earned(task, state, picked) - earned
    if missing < invited or (missing == invited and better >= -NEAR * earned):
        state.waiting[waiting - invited : waiting - invited + missing] = ids[:missing]
        state.waiting[clients] = waiting - invited + missing
    else:
        for k, g in enumerate(picked):
            state.dnn[g], state.filled[g] = s.saved[k, 0], s.saved[k, 1]
            state.members[g, : state.filled[g]] = s.saved[k, 2 : 2 + state.filled[g]]
            index(task, state, int(g))
    if missing < invited or (missing == invited and better > NEAR * earned):
        for gpu in picked:
            _touch(task, state, int(gpu), 1)
