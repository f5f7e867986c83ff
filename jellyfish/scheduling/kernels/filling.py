"""The published knapsack: which of the clients that are left a GPU takes.

Value and weight are both the frame rate, so the dynamic program's table is a set of bits: bit w is
set where some of the clients so far weigh w.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray

from jellyfish.scheduling.kernels.arrays import Floats, Ints
from jellyfish.scheduling.kernels.compiling import compiled

Words = NDArray[np.uint64]  # a set: 64 of its members a word

ONE = np.uint64(1)
FULL = np.uint64(2**64 - 1)
NOBODY = -1


class Rows(NamedTuple):
    """C clients that M DNNs may serve; frame rates and capacities in whole units.

    Args:
        client: (M, C) clients by their budget for DNN m, largest first; the first `counts[m]`.
        counts: (M,) how many the DNN can serve at all.
        capacity: (M, C) units that a GPU carries at the largest batch which that client allows.
        weight: (C,) units.
        fps: (C,) frames/s.
        accuracy: (M,) of the DNNs.
        order: (M,) DNNs by accuracy, the best first.
        servable: how many clients count, and their frames/s: what worth is relative to.
    """

    client: Ints
    counts: Ints
    capacity: Ints
    weight: Ints
    fps: Floats
    accuracy: Floats
    order: Ints
    servable: Floats


class Knapsack(NamedTuple):
    """Room to work in.

    Args:
        sums: the weights that some set of clients has.
        last: (units,) the client that made a weight possible first.
        taken: (C,) the answer.
    """

    sums: Words
    last: Ints
    taken: Ints


@compiled
def holds(members: Words, i: int) -> bool:
    """Return whether `i` is in the set."""
    return bool(members[i >> 6] >> np.uint64(i & 63) & ONE)


@compiled
def remove(members: Words, i: int) -> None:
    """Take `i`, which is in the set, out of it."""
    members[i >> 6] ^= ONE << np.uint64(i & 63)


@compiled
def _add(sack: Knapsack, client: int, weight: int, best: int, capacity: int) -> int:
    """Add the sums with a client to those without, up to `capacity`; return the largest.

    Args:
        sack: is changed.
        client: who weighs `weight`.
        weight: in units.
        best: the largest sum so far.
        capacity: in units.
    """
    largest = best
    end, skip, shift = min(capacity, best + weight), weight >> 6, np.uint64(weight & 63)
    for k in range(end >> 6, skip - 1, -1):  # downwards: what is read is not yet changed
        new = sack.sums[k - skip] << shift
        if shift and k > skip:
            new |= sack.sums[k - skip - 1] >> np.uint64(64) - shift
        if k == end >> 6:
            new &= FULL >> np.uint64(63 - (end & 63))
        new &= ~sack.sums[k]
        sack.sums[k] |= new
        while new:
            total = (k << 6) + int(trailing_zeros(new))
            sack.last[total] = client
            largest = max(largest, total)
            new &= new - ONE
    return largest


@compiled
def take(rows: Rows, dnn: int, left: Words, sack: Knapsack) -> int:
    """Find the clients that fill a GPU best, among the first n of those `left` for any n.

    Capacities do not rise along the rows: to take in a row's client means to live with its
    capacity. The first set of the largest weight wins, and each client that it can do without stays
    out. `sack.taken` has them then; their number is returned.
    """
    sack.sums[:] = 0
    sack.sums[0] = ONE
    best = 0
    for n in range(rows.counts[dnn]):
        client, capacity = rows.client[dnn, n], rows.capacity[dnn, n]
        if holds(left, client):
            best = _add(sack, client, rows.weight[client], best, capacity)
            if best >= capacity:
                break  # later rows have no more room
    count = 0
    while best:
        sack.taken[count] = sack.last[best]
        best -= rows.weight[sack.taken[count]]
        count += 1
    return count


@compiled
def fill(rows: Rows, dnns: Ints, turns: Ints, left: Words, sack: Knapsack) -> Ints:
    """Return (C,) the GPU that takes each client, or NOBODY.

    Args:
        rows: the clients.
        dnns: (G,) what each GPU runs.
        turns: (G,) GPUs in the order in which they choose.
        left: all clients; changed to those that no GPU takes.
        sack: room to work in.
    """
    gpus = np.full(len(rows.weight), NOBODY)
    for gpu in turns:
        for k in range(take(rows, dnns[gpu], left, sack)):
            gpus[sack.taken[k]] = gpu
            remove(left, sack.taken[k])
    return gpus
