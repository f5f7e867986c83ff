"""The search: plans from several starts, pairs of GPUs planned anew, a few emptied and refilled.

A start fills all GPUs one by one; then every two GPUs are planned anew until no two can do better.
Where that ends depends on the start, so there are some, with other prices and by chance; the best
of them is kept, and then improved three GPUs at a time. A plan that leaves clients waiting is
pressed first (see `pressing`), and only then made more accurate.
"""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import (
    BOUND,
    CLOCK,
    LATER,
    NEAR,
    NEXT,
    NOBODY,
    NOW,
    PRICE,
    ROUNDS,
    STARTED,
    UNAVOIDABLE,
    Ints,
    Scratch,
    State,
    Task,
    constant,
)
from jellyfish.scheduling.kernels.building import bagged, build, draw, price
from jellyfish.scheduling.kernels.compiling import compiled, inlined
from jellyfish.scheduling.kernels.crowds import replan
from jellyfish.scheduling.kernels.moving import (
    RUINED,
    earned,
    insert,
    keep,
    pick,
    touch,
    weigh,
)
from jellyfish.scheduling.kernels.pairs import index
from jellyfish.scheduling.kernels.pressing import (
    FAILURES,
    LARGER,
    SMALLER,
    exchange,
    exchange_all,
    press,
    restore,
    unavoidable,
)

RUIN_STEPS = 20  # what that costs, in pairs of GPUs planned anew
START_STEPS = 3  # what a start costs per GPU
STARTS = 16
NOTHING, START, PRESS, RUIN, END = range(5)
PRESSES = constant(40)  # rounds of pressing, at first
PRESS_STEPS = 5  # what a round costs beside pairs
EXCHANGES = 5000  # that are looked at in a step
AGAIN = 4  # ruins, on average, between more rounds
MORE_PRESSES = constant(8)
TRIES = constant(4)  # DNNs and batch sizes that the first start weighs per GPU
ZERO = constant(0)
ALONE = constant(0)  # the GPU, where there is one


@compiled
def begin(task: Task, state: State, best: State) -> None:
    """Work out the price of a GPU and the bound that it allows."""
    clients, gpus = len(task.weight), len(state.filled)
    ids = np.arange(clients)
    bag = bagged(task.kinds, ids, clients)
    start = 0.2 * task.accuracy[-1] * task.capacity.max() + NEAR
    now = price(task, bag, gpus, start, 1e-3)
    state.worth[:] = bag.worth
    state.numbers[PRICE], state.numbers[BOUND] = now, now * gpus
    for a in range(bag.size[0]):
        k = bag.kinds[a]
        state.numbers[BOUND] += task.kinds.weight[k] * bag.left[k] * bag.worth[k]
    state.waiting[clients] = best.waiting[clients] = clients + 1  # worse than any plan
    state.numbers[UNAVOIDABLE] = -1.0
    best.numbers[:] = state.numbers


@inlined
def _start(task: Task, state: State, best: State, s: Scratch) -> None:
    """Make a plan from nothing; keep the one there was if it is the best so far."""
    keep(task, state, best)
    clients, gpus, now = len(task.weight), len(state.filled), int(state.numbers[STARTED])
    spare, tries, noise = 0.0, TRIES, 0.0
    if now > 0:
        spare, tries = 0.15 * draw(state.random, 4), 1 + draw(state.random, 4)
        noise = 1.0 + draw(state.random, 5)
    ids = np.arange(clients)
    left = build(task, state, ids, clients, np.arange(gpus), spare, tries, noise)
    for g in range(gpus):
        weigh(task, state, g)
    state.order[:gpus] = np.argsort(-state.loss)
    state.order[gpus], state.order[gpus + 1] = 0, 0
    state.numbers[CLOCK] += gpus * (gpus - 1) // 2
    state.changed[:] = int(state.numbers[CLOCK]) + 1
    by_weight = np.argsort(task.weight[ids[:left]])
    waiting = 0
    for a in range(left):
        i = ids[by_weight[a]]
        if waiting >= FAILURES or not insert(task, state, i, state.order[:gpus], NEXT, s):
            state.waiting[waiting] = i
            waiting += 1
    state.waiting[clients] = waiting
    if gpus == 1 and replan(task, state, ALONE, ALONE, NOBODY, s):  # there is no pair that would be
        touch(task, state, ALONE, LATER)
    state.numbers[STARTED] += 1


@compiled
def advance(task: Task, state: State, best: State, steps: int, s: Scratch) -> int:
    """Make the first plan, or improve it by so many steps; return how many were not needed.

    `best` is the best plan before the last start, or before it was pressed.
    """
    gpus = len(state.filled)
    flat = Task(task.weight, task.batch, task.capacity, np.ones_like(task.accuracy), task.kinds)
    act = START if state.numbers[STARTED] == 0 else NOTHING
    while steps > 0 or act == START:
        pressed = state.numbers[ROUNDS] > 0
        g, h = (NOBODY, NOBODY) if act == START else _next_pair(state)
        if g >= 0:
            if replan(flat if pressed else task, state, g, h, NOBODY, s):
                touch(task, state, g, NOW)
                touch(task, state, h, NOW)
            steps -= 1
            continue
        if act == NOTHING:
            act = PRESS if pressed else _decide(task, state, best)
        if act == END:
            break
        if act == START:
            _start(task, state, best, s)
            steps -= START_STEPS * gpus if state.numbers[STARTED] > 1 else 0
        elif act == PRESS:
            press(task, flat, state, best, s)
            steps -= PRESS_STEPS + _looks(state)
        elif act == RUIN:
            _ruin(task, state, s)
            steps -= RUIN_STEPS
        else:
            steps -= 1 + _looks(state)
        act = NOTHING
    return max(0, steps)


@inlined
def _looks(state: State) -> int:
    """Return the steps that it takes to look for exchanges with all who wait."""
    waiting = state.waiting[-1]
    return int(waiting * (len(state.waiting) - 1) // EXCHANGES)


@inlined
def _decide(task: Task, state: State, best: State) -> int:
    """Return what to do with a plan of which no two GPUs can do better."""
    waiting = state.waiting[-1]
    if waiting == 0 and len(state.filled) < 3:
        return END  # one pair is all there is
    if waiting > 0 and state.numbers[UNAVOIDABLE] < 0:
        state.numbers[UNAVOIDABLE] = unavoidable(task, len(state.filled))
        _press_on(task, state, best, PRESSES)
        return NOTHING
    if waiting > 0 and exchange_all(task, state, LARGER):
        return NOTHING
    if state.numbers[STARTED] < STARTS and (waiting == 0 or state.numbers[UNAVOIDABLE] == 0):
        return START
    if state.numbers[STARTED] <= STARTS or waiting > best.waiting[-1]:
        state.numbers[STARTED] = STARTS + 1
        keep(task, state, best)
        restore(task, best, state)
        return NOTHING
    if waiting > max(0, state.numbers[UNAVOIDABLE]) and draw(state.random, AGAIN) == 0:
        _press_on(task, state, best, MORE_PRESSES)
        return NOTHING
    return RUIN


@compiled
def _press_on(task: Task, state: State, best: State, rounds: int) -> None:
    """Let the next steps serve more clients, whatever that costs in accuracy."""
    keep(task, state, best)
    state.numbers[ROUNDS] = rounds
    exchange_all(task, state, SMALLER)
    for g in range(len(state.filled)):
        touch(task, state, g, LATER)


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
        state.numbers[CLOCK] += 1
        g, h = state.order[state.order[gpus]], state.order[state.order[gpus + 1]]
        since = int(state.numbers[CLOCK]) - pairs
        news = state.changed[g] > since or state.changed[h] > since
        if news and state.loss[g] + state.loss[h] > NEAR * state.numbers[PRICE]:
            return g, h
    return -1, -1


@inlined
def _ruin(task: Task, state: State, s: Scratch) -> None:
    """Empty some GPUs, fill them anew, with clients that wait; undo that if it was no good."""
    clients = len(task.weight)
    picked = np.empty(min(RUINED, len(state.filled)), np.int64)
    pick(state, picked)
    ids, n = np.empty(clients, np.int64), ZERO
    for k, g in enumerate(picked):
        count = state.filled[g]
        s.saved[k, 0], s.saved[k, 1] = state.dnn[g], count
        for a in range(count):
            ids[n] = s.saved[k, 2 + a] = state.members[g, a]
            n += 1
    before, waited = earned(task, state, picked), state.waiting.copy()
    waiting = state.waiting[clients]
    most = 2 + draw(state.random, 2) * (n + 3)  # a few for a gap, or as many as there are already
    invited = min(waiting, 1 + draw(state.random, most))
    for a in range(invited):  # to the end of those who wait
        b = waiting - 1 - a
        c = draw(state.random, b + 1)
        state.waiting[b], state.waiting[c] = state.waiting[c], state.waiting[b]
        ids[n] = state.waiting[b]
        n += 1
    missing = _refill(task, state, picked, ids, n, invited, s)
    if missing <= invited:
        state.waiting[waiting - invited : waiting - invited + missing] = ids[:missing]
        state.waiting[clients] = waiting - invited + missing
        if waiting > 0:
            for g in picked:
                while exchange(task, state, int(g), LARGER):
                    pass
    better = earned(task, state, picked) - before
    if missing > invited or (missing == invited and better < -NEAR * before):
        state.waiting[:] = waited
        for k, g in enumerate(picked):
            state.dnn[g], state.filled[g] = s.saved[k, 0], s.saved[k, 1]
            state.members[g, : state.filled[g]] = s.saved[k, 2 : 2 + state.filled[g]]
            index(task, state, int(g))
    elif missing < invited or better > NEAR * before:
        for g in picked:
            touch(task, state, int(g), LATER)


@inlined
def _refill(
    task: Task, state: State, picked: Ints, ids: Ints, n: int, spare_ones: int, s: Scratch
) -> int:
    """Fill `picked` GPUs with the clients `ids[:n]`; return how many are left, `ids` first.

    As soon as that is more than `spare_ones`, it was no good.
    """
    spare, tries = draw(state.random, 60) / 100, 1 + draw(state.random, 4)
    left = build(task, state, ids, n, picked, spare, tries, 0.5)
    missing = 0
    for a in range(left):
        if missing > spare_ones or not insert(task, state, ids[a], picked, NEXT, s):
            ids[missing] = ids[a]
            missing += 1
    if missing <= spare_ones:
        for _ in range(2):
            for a in range(len(picked)):
                for b in range(a):
                    replan(task, state, picked[a], picked[b], NOBODY, s)
    return missing
