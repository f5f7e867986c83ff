"""Filling GPUs one by one, guided by a price per GPU: the relaxation's only multiplier.

Let clients be divisible, and each takes the DNN that is worth most to it at a price per GPU. The
price at which they ask for as many GPUs as there are gives an upper bound on every plan; a plan
falls short of it by clients on other DNNs than their choice and by room left free, GPU by GPU.
"""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import NEAR, Floats, Ints, State, Task
from jellyfish.scheduling.kernels.compiling import compiled

EXHAUSTED = 1e30  # the price of GPUs when there are too few for everybody


@compiled
def draw(random: Ints, n: int) -> int:
    """Return a number below `n`."""
    x = random[0]
    x ^= (x << 13) & 0x7FFFFFFFFFFFFFFF
    x ^= x >> 7
    x ^= (x << 17) & 0x7FFFFFFFFFFFFFFF
    random[0] = x
    return int((x >> 11) % n)


@compiled
def choose(task: Task, ids: Ints, n: int, price: float, choice: Ints, worth: Floats) -> float:
    """Let each client choose its DNN at a price per GPU; return how many GPUs that takes."""
    used = 0.0
    dnns = task.accuracy.shape[0]
    for a in range(n):
        i = ids[a]
        best, chosen = -1e300, 0
        for m in range(dnns):
            value = task.accuracy[m] - price * task.share[i, m]
            if value > best:
                best, chosen = value, m
        choice[i] = chosen
        worth[i] = best
        used += task.weight[i] * task.share[i, chosen]
    return used


@compiled
def price(
    task: Task,
    ids: Ints,
    n: int,
    gpus: float,
    start: float,
    close: float,
    choice: Ints,
    worth: Floats,
) -> float:
    """Return the least price, but for a share of `close`, at which clients ask for no more GPUs.

    EXHAUSTED where no price keeps them from it.
    """
    low, high, now, pace = 0.0, -1.0, start, 1.0 + 4 * close
    while True:
        if choose(task, ids, n, now, choice, worth) > gpus:
            low = now
            if now > EXHAUSTED:
                return EXHAUSTED
        else:
            high = now
            if now < 1e-6 * start:
                return now
        if low == 0.0:
            now /= pace
            pace *= pace
        elif high < 0:
            now *= pace
            pace *= pace
        elif high - low < close * high:
            break
        else:
            now = 0.5 * (low + high)
    if now != high:
        choose(task, ids, n, high, choice, worth)
    return high


@compiled
def _fill(
    task: Task, ids: Ints, n: int, m: int, b: int, now: float, worth: Floats, out: Ints
) -> tuple[int, float]:
    """Fill a GPU with those who lose least by it; return how many, and what is lost."""
    room = task.capacity[m, b]
    free_unit = now / room
    net = task.accuracy[m] - free_unit
    keys, able = np.empty(n), np.empty(n, np.int64)
    k, own = 0, 0
    for a in range(n):
        i = ids[a]
        if task.batch[i, m] >= b:
            lost = worth[i] - net
            if now >= EXHAUSTED:  # not all can be served: the small ones first
                keys[k] = task.weight[i]
            elif lost <= NEAR:
                keys[k] = -1e-12 * task.weight[i]
                own += task.weight[i]
            elif lost < free_unit and own < 2 * room:  # beyond that, room is better left free
                keys[k] = lost
            else:
                continue
            able[k] = i
            k += 1
    order = np.argsort(keys[:k])
    taken, load, loss = 0, 0, 0.0
    for a in range(k):
        i = able[order[a]]
        if load + task.weight[i] <= room:
            load += task.weight[i]
            out[taken] = i
            taken += 1
            loss += task.weight[i] * max(0.0, worth[i] - net)
            if load == room:
                break
    if now >= EXHAUSTED:
        return taken, -float(taken)
    return taken, loss + now * (1 - load / room)


@compiled
def _demand(task: Task, ids: Ints, n: int, choice: Ints, asked: Ints) -> None:
    """Add up what is asked of each DNN and batch size."""
    asked[:] = 0
    for a in range(n):
        i = ids[a]
        asked[choice[i], task.batch[i, choice[i]]] += task.weight[i]


@compiled
def _fullest(task: Task, asked: Ints) -> tuple[int, int, float]:
    """Return the DNN and batch size that is asked for most, in GPUs."""
    dnn, batch, most = -1, 0, 0.0
    for m in range(asked.shape[0]):
        for b in range(1, asked.shape[1]):
            if asked[m, b] > most * task.capacity[m, b]:
                dnn, batch, most = m, b, asked[m, b] / task.capacity[m, b]
    return dnn, batch, most


@compiled
def build(
    task: Task, state: State, ids: Ints, n: int, gpus: Ints, spare: float, tries: int, noise: float
) -> int:
    """Fill `gpus` one by one with `ids[:n]`, each at the least loss; return how many are left.

    Args:
        task: what is planned.
        state: where the GPUs' clients go.
        ids: who; on return, first those who found no room.
        n: how many they are.
        gpus: which to fill.
        spare: GPUs' worth of room that prices keep free, for what does not fit exactly.
        tries: DNNs and batch sizes weighed against each other per GPU.
        noise: how much a loss may be overrated, by chance.
    """
    choice, worth = np.zeros(len(task.weight), np.int64), np.zeros(len(task.weight))
    out, best = np.empty(n, np.int64), np.empty(n, np.int64)
    asked = np.zeros(task.capacity.shape, np.int64)
    price_now, stale = state.numbers[0], True
    for g in range(len(gpus)):
        if n == 0:
            state.filled[gpus[g]] = 0
            continue
        if stale:
            room = max(0.4, len(gpus) - g - spare)
            start = min(max(price_now, NEAR), 1e9)
            price_now = price(task, ids, n, room, start, 0.01, choice, worth)
        _demand(task, ids, n, choice, asked)
        least, taken, dnn, stale = 1e300, 0, 0, True
        for _ in range(tries):
            m, b, fullness = _fullest(task, asked)
            if m < 0:
                break
            asked[m, b] = 0
            k, loss = _fill(task, ids, n, m, b, price_now, worth, out)
            if noise > 0:
                loss *= 1.0 + noise * draw(state.random, 1000) / 1000
            if loss < least:
                least, taken, dnn = loss, k, m
                best[:k] = out[:k]
            if fullness >= 1.0 and loss < 0.02 * price_now:
                stale = False  # the others' wishes still hold
                break
        g_now = gpus[g]
        state.dnn[g_now], state.filled[g_now] = dnn, taken
        for a in range(taken):
            state.members[g_now, a] = best[a]
            choice[best[a]] = -1
        k = 0
        for a in range(n):
            if choice[ids[a]] >= 0:
                ids[k] = ids[a]
                k += 1
        n = k
    return n
