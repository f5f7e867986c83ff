"""Clients by kind, and what each kind wishes for at which price of a GPU."""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import Floats, Ints, Kinds, Task
from jellyfish.scheduling.kernels.compiling import compiled

IMPOSSIBLE = 1e12  # GPUs per unit, where a DNN cannot serve a client


@compiled
def describe(weight: Ints, batch: Ints, capacity: Ints, accuracy: Floats) -> Task:
    """Return the task of clients whose deadlines allow `batch` (C, M), and rates too (changed)."""
    for i in range(batch.shape[0]):
        for m in range(batch.shape[1]):
            if capacity[m, batch[i, m]] < weight[i]:
                batch[i, m] = 0
    of, first, count = _sorted_into_kinds(weight, batch)
    dnns = len(accuracy)
    kinds = Kinds(
        of,
        weight[first[:count]],
        batch[first[:count]],
        np.empty((count, dnns)),
        np.zeros((count, dnns), np.int64),
        np.zeros((count, dnns)),
        np.zeros(count, np.int64),
    )
    for k in range(count):
        for m in range(dnns):
            room = capacity[m, kinds.batch[k, m]]
            kinds.share[k, m] = 1.0 / room if room > 0 else IMPOSSIBLE
        _wish(kinds, k, accuracy)
    return Task(weight, batch, capacity, accuracy, kinds)


@compiled
def _sorted_into_kinds(weight: Ints, batch: Ints) -> tuple[Ints, Ints, int]:
    """Return each client's kind, the first client of each kind, and how many kinds there are."""
    clients, dnns = batch.shape
    of, first, count = np.empty(clients, np.int64), np.empty(clients, np.int64), 0
    slots = 4
    while slots < 2 * clients:
        slots *= 2
    table = np.full(slots, -1)
    for i in range(clients):
        key = weight[i]
        for m in range(dnns):
            key = (key * 0x9E3779B1 + batch[i, m]) & 0x3FFFFFFFFFFFF
        slot = (key ^ key >> 17) & (slots - 1)
        while table[slot] >= 0:
            other = first[table[slot]]
            if weight[other] == weight[i] and (batch[other] == batch[i]).all():
                break
            slot = (slot + 1) & (slots - 1)
        if table[slot] < 0:
            table[slot], first[count] = count, i
            count += 1
        of[i] = table[slot]
    return of, first, count


@compiled
def _wish(kinds: Kinds, k: int, accuracy: Floats) -> None:
    """Find the DNNs on the upper hull of accuracy over GPUs taken: others no price makes best."""
    n = 0
    for m in range(len(accuracy) - 1, -1, -1):
        share = kinds.share[k, m]
        turn = 0.0
        while n > 0:
            last = kinds.wish[k, n - 1]
            if share >= kinds.share[k, last]:
                turn = -1.0
                break
            turn = (accuracy[last] - accuracy[m]) / (kinds.share[k, last] - share)
            if turn > kinds.turn[k, n - 1]:
                break
            n -= 1
            turn = 0.0
        if turn >= 0:
            kinds.wish[k, n], kinds.turn[k, n] = m, turn
            n += 1
    kinds.wishes[k] = n
