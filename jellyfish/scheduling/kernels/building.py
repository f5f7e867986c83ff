"""Filling GPUs one by one, guided by a price per GPU: the relaxation's only multiplier.

Let clients be divisible, and each takes the DNN that is worth most to it at a price per GPU. The
price at which they ask for as many GPUs as there are gives an upper bound on every plan; a plan
falls short of it by clients on other DNNs than their choice and by room left free, GPU by GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jellyfish.scheduling.kernels.arrays import NEAR, PRICE, Floats, Ints, Kinds, State, Task
from jellyfish.scheduling.kernels.compiling import compiled
from jellyfish.scheduling.kernels.pairs import SEARCH_STEPS, index, subset

EXHAUSTED = 1e30  # the price of GPUs when there are too few for everybody
FITTING = 0.02  # of a GPU's price may be lost by it without asking everybody anew
SIZES = 16  # different frame rates among which an exact filling is sought


class Bag(NamedTuple):
    """Clients that have no GPU yet, by kind.

    Args:
        kinds: (K,) the kinds there are, the first `size[0]`.
        size: (2,) how many kinds, and how many clients.
        left: (K,) how many clients of each kind.
        head: (K,) one of them; -1 for none.
        next: (C,) the one after a client; -1 for none.
        at: (K,) which of its wishes is each kind's choice.
        worth: (K,) of a unit of it.
    """

    kinds: Ints
    size: Ints
    left: Ints
    head: Ints
    next: Ints
    at: Ints
    worth: Floats


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
def bagged(kinds: Kinds, ids: Ints, n: int) -> Bag:
    """Return a bag of the clients `ids[:n]`."""
    many = len(kinds.weight)
    size = np.zeros(2, np.int64)
    found, left, at = np.empty(many, np.int64), np.zeros(many, np.int64), np.zeros(many, np.int64)
    head, following = np.empty(many, np.int64), np.empty(len(kinds.of), np.int64)
    for a in range(n):
        i = ids[a]
        k = kinds.of[i]
        if left[k] == 0:
            head[k] = -1
            found[size[0]] = k
            size[0] += 1
        following[i], head[k] = head[k], i
        left[k] += 1
    size[1] = n
    return Bag(found, size, left, head, following, at, np.zeros(many))


@compiled
def _choose(task: Task, bag: Bag, price: float) -> float:
    """Let each kind choose its DNN at a price per GPU; return how many GPUs that takes."""
    kinds, used = task.kinds, 0.0
    for a in range(bag.size[0]):
        k = bag.kinds[a]
        at = bag.at[k]
        while at + 1 < kinds.wishes[k] and kinds.turn[k, at + 1] <= price:
            at += 1
        while kinds.turn[k, at] > price:
            at -= 1
        bag.at[k] = at
        m = kinds.wish[k, at]
        bag.worth[k] = task.accuracy[m] - price * kinds.share[k, m]
        used += bag.left[k] * kinds.weight[k] * kinds.share[k, m]
    return used


@compiled
def price(task: Task, bag: Bag, gpus: float, start: float, close: float) -> float:
    """Return the least price, but for a share of `close`, at which clients ask for no more GPUs.

    EXHAUSTED where no price keeps them from it.
    """
    low, high, now, pace = 0.0, -1.0, start, 1.0 + 4 * close
    while True:
        if _choose(task, bag, now) > gpus:
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
        _choose(task, bag, high)
    return high


@compiled
def _fill_exactly(
    task: Task, bag: Bag, able: Ints, order: Ints, keys: Floats, room: int, out: Ints
) -> tuple[int, int, int]:
    """Fill a GPU as full as can be with those who lose nothing by it: the ones of `keys` below 0.

    Return how many kinds these are, of how many kinds there are clients in `out`, and their load;
    nothing where their frame rates are too many.
    """
    sizes, have = np.zeros(SIZES, np.int64), np.zeros(SIZES, np.int64)
    take, best = np.zeros(SIZES, np.int64), np.zeros(SIZES, np.int64)
    n, own = 0, 0
    while own < len(order) and keys[order[own]] < 0:
        k = able[order[own]]
        if n == 0 or sizes[n - 1] != task.kinds.weight[k]:
            if n == SIZES:
                return 0, 0, 0
            sizes[n] = task.kinds.weight[k]
            n += 1
        have[n - 1] += bag.left[k]
        own += 1
    load = subset(sizes, have, n, room, take, best, SEARCH_STEPS)
    many, at = 0, 0
    for a in range(own):
        k = able[order[a]]
        while sizes[at] != task.kinds.weight[k]:
            at += 1
        count = min(best[at], bag.left[k])
        if count > 0:
            best[at] -= count
            out[many, 0], out[many, 1] = k, count
            many += 1
    return own, many, load


@compiled
def _fill(task: Task, bag: Bag, m: int, b: int, now: float, out: Ints) -> tuple[int, float]:
    """Fill a GPU with those who lose least by it.

    Return of how many kinds, and what is lost; `out` says how many clients of which.
    """
    kinds, room = task.kinds, task.capacity[m, b]
    free_unit = now / room
    net = task.accuracy[m] - free_unit
    many = bag.size[0]
    keys, able = np.empty(many), np.empty(many, np.int64)
    n, own = 0, 0
    for a in range(many):
        k = bag.kinds[a]
        if kinds.batch[k, m] >= b:
            lost = bag.worth[k] - net
            if now >= EXHAUSTED:  # not all can be served: the small ones first
                keys[n] = kinds.weight[k]
            elif lost <= NEAR:
                keys[n] = -1e-12 * kinds.weight[k]
                own += kinds.weight[k] * bag.left[k]
            elif lost < free_unit and own < 2 * room:  # beyond that, room is better left free
                keys[n] = lost
            else:
                continue
            able[n] = k
            n += 1
    order = np.argsort(keys[:n])
    many, load, loss, served, start = 0, 0, 0.0, 0, 0
    if own > room and now < EXHAUSTED:
        start, many, load = _fill_exactly(task, bag, able, order, keys, room, out)
    for a in range(start, n):
        k = able[order[a]]
        count = min(bag.left[k], (room - load) // kinds.weight[k])
        if count > 0:
            load += count * kinds.weight[k]
            out[many, 0], out[many, 1] = k, count
            many += 1
            served += count
            loss += count * kinds.weight[k] * max(0.0, bag.worth[k] - net)
            if load == room:
                break
    if now >= EXHAUSTED:
        return many, -float(served)
    return many, loss + now * (1 - load / room)


@compiled
def _demand(task: Task, bag: Bag, asked: Ints) -> None:
    """Add up what is asked of each DNN and batch size."""
    kinds = task.kinds
    asked[:] = 0
    for a in range(bag.size[0]):
        k = bag.kinds[a]
        m = kinds.wish[k, bag.at[k]]
        asked[m, kinds.batch[k, m]] += kinds.weight[k] * bag.left[k]


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
def _hand_over(kinds: Kinds, state: State, bag: Bag, g: int, some: Ints, many: int) -> None:
    """Move clients, so many of each kind, from the bag to GPU g."""
    filled = 0
    order = np.argsort(-kinds.weight[some[:many, 0]])
    for a in order:
        k, count = some[a, 0], some[a, 1]
        bag.left[k] -= count
        bag.size[1] -= count
        for _ in range(count):
            state.members[g, filled] = bag.head[k]
            bag.head[k] = bag.next[bag.head[k]]
            filled += 1
    state.filled[g] = filled
    n = 0
    for a in range(bag.size[0]):
        k = bag.kinds[a]
        if bag.left[k] > 0:
            bag.kinds[n] = k
            n += 1
    bag.size[0] = n


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
    bag = bagged(task.kinds, ids, n)
    out, best = np.empty((n, 2), np.int64), np.empty((n, 2), np.int64)
    asked = np.zeros(task.capacity.shape, np.int64)
    price_now, stale = state.numbers[PRICE], True
    for g in range(len(gpus)):
        if bag.size[1] == 0:
            state.filled[gpus[g]] = 0
            index(task, state, gpus[g])
            continue
        if stale:
            room = max(0.4, len(gpus) - g - spare)
            start = min(max(price_now, NEAR), 1e9)
            price_now = price(task, bag, room, start, 0.01)
        _demand(task, bag, asked)
        least, many, dnn, stale = 1e300, 0, 0, True
        for _ in range(tries):
            m, b, fullness = _fullest(task, asked)
            if m < 0:
                break
            asked[m, b] = 0
            k, loss = _fill(task, bag, m, b, price_now, out)
            if noise > 0:
                loss *= 1.0 + noise * draw(state.random, 1000) / 1000
            if loss < least:
                least, many, dnn = loss, k, m
                best[:k] = out[:k]
            if fullness >= 1.0 and loss < FITTING * price_now:
                stale = False  # the others' wishes still hold
                break
        state.dnn[gpus[g]] = dnn
        _hand_over(task.kinds, state, bag, gpus[g], best, many)
        index(task, state, gpus[g])
    n = 0
    for a in range(bag.size[0]):
        i = bag.head[bag.kinds[a]]
        while i >= 0:
            ids[n] = i
            n += 1
            i = bag.next[i]
    return n
