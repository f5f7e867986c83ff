"""The published annealing over the DNNs that GPUs run."""

from __future__ import annotations

from math import exp, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jellyfish.scheduling.kernels.arrays import Floats, Ints
from jellyfish.scheduling.kernels.compiling import compiled
from jellyfish.scheduling.kernels.filling import Knapsack, Rows, Words, remove, take

THRESHOLD = 1.0  # effectiveness below which DNNs are degraded
STATE, TRIED, BEST = 0, 1, 2
EFFECTIVENESS, ACCURACY = 0, 1
UNKNOWN = -1.0
TWISTER = 624  # words of a Mersenne twister


class Memory(NamedTuple):
    """What GPUs took before: a node for each beginning of a list of DNNs, the best DNN first.

    Args:
        after: (N, M) the node after one more GPU that runs DNN m; 0 where there is none yet.
        left: (N, W) clients that remain.
        mapped: (N,) clients that do not.
        fps: (N,) frames/s that the last GPU took.
        used: (1,) how many nodes there are. The first has no GPU and all clients.
    """

    after: NDArray[np.int32]
    left: Words
    mapped: Ints
    fps: Floats
    used: Ints


class Walk(NamedTuple):
    """Where the annealing is, each time for its state, the neighbour tried last, and the best.

    Args:
        dnns: (3, G) what the GPUs run, ascending.
        worth: (3, 2) its effectiveness and accuracy per request, UNKNOWN at first.
        counts: (2,) neighbours tried, and those that became the state.
        random: (625,) as `random.Random.getstate()` has it, a Mersenne twister and its next word.
    """

    dnns: Ints
    worth: Floats
    counts: Ints
    random: Ints


@compiled
def _twist(random: Ints) -> None:
    """Make the next words of the generator (Matsumoto and Nishimura, 1998)."""
    for k in range(TWISTER):
        mixed = random[k] & 0x80000000 | random[(k + 1) % TWISTER] & 0x7FFFFFFF
        random[k] = random[(k + 397) % TWISTER] ^ mixed >> 1 ^ (mixed & 1) * 0x9908B0DF
    random[TWISTER] = 0


@compiled
def _bits(random: Ints, count: int) -> int:
    """Return what Python's `getrandbits(count)` would, up to 32."""
    if random[TWISTER] == TWISTER:
        _twist(random)
    word = random[random[TWISTER]]
    random[TWISTER] += 1
    word ^= word >> 11
    word ^= word << 7 & 0x9D2C5680
    word ^= word << 15 & 0xEFC60000
    word ^= word >> 18
    return int(word >> 32 - count)


@compiled
def _choice(random: Ints, options: int) -> int:
    """Return the index that Python's `choice` would, among two or three options."""
    drawn = _bits(random, 2)
    while drawn >= options:
        drawn = _bits(random, 2)
    return drawn


@compiled
def _uniform(random: Ints) -> float:
    """Return what Python's `random` would."""
    high, low = _bits(random, 27), _bits(random, 26)
    return float((high * 2.0**26 + low) * 2.0**-53)


@compiled
def _node_after(rows: Rows, memory: Memory, sack: Knapsack, node: int, dnn: int) -> int:
    """Return the node after one more GPU; look into what it takes if it is new."""
    if memory.after[node, dnn]:
        return int(memory.after[node, dnn])
    new = memory.used[0]
    memory.used[0] += 1
    memory.after[node, dnn] = new
    memory.after[new] = 0
    left = memory.left[new]
    left[:] = memory.left[node]
    count, fps = take(rows, dnn, left, sack), 0.0
    for k in range(count):
        fps += rows.fps[sack.taken[k]]
        remove(left, sack.taken[k])
    memory.mapped[new], memory.fps[new] = memory.mapped[node] + count, fps
    return int(new)


@compiled
def _weigh(rows: Rows, memory: Memory, sack: Knapsack, dnns: Ints, worth: Floats) -> None:
    """Work out the effectiveness and accuracy of GPUs that run `dnns`."""
    if memory.used[0] + len(dnns) > len(memory.fps):
        memory.used[0] = 1  # no room: forget all
        memory.after[0] = 0
    node = 0
    fps = np.empty(len(dnns))
    for dnn in rows.order:
        for gpu in range(len(dnns)):
            if dnns[gpu] == dnn:
                node = _node_after(rows, memory, sack, node, dnn)
                fps[gpu] = memory.fps[node]
    earned = 0.0
    for gpu in range(len(dnns)):
        earned += rows.accuracy[dnns[gpu]] * fps[gpu]
    worth[EFFECTIVENESS] = memory.mapped[node] / rows.servable[0]
    worth[ACCURACY] = earned / rows.servable[1]


@compiled
def _move(walk: Walk, moves: int, dnns: int) -> None:
    """Draw the neighbour to try: each GPU moves by -1, 0 or, of three `moves`, +1."""
    tried = walk.dnns[TRIED]
    for gpu in range(len(tried)):
        moved = walk.dnns[STATE, gpu] + _choice(walk.random, moves) - 1
        tried[gpu] = min(max(moved, 0), dnns - 1)
    tried.sort()


@compiled
def _copy(walk: Walk, source: int, target: int) -> None:
    walk.dnns[target] = walk.dnns[source]
    walk.worth[target] = walk.worth[source]


@compiled
def _value(walk: Walk, which: int, upgrade: bool) -> float:
    """Return what a phase compares; one that upgrades never takes what maps too few clients."""
    effectiveness = float(walk.worth[which, EFFECTIVENESS])
    if not upgrade:
        return effectiveness
    return float(walk.worth[which, ACCURACY]) if effectiveness >= THRESHOLD else -inf


@compiled
def anneal(
    rows: Rows, memory: Memory, sack: Knapsack, walk: Walk, temperatures: Floats, upgrade: bool
) -> bool:
    """Try a neighbour at each temperature; return whether there is nothing left to try.

    Args:
        rows: the clients.
        memory: of what was worked out before.
        sack: room to work in.
        walk: is moved on.
        temperatures: (steps,) falling.
        upgrade: DNNs, for accuracy; or degrade them, until the effectiveness is at the threshold.
    """
    if walk.worth[STATE, EFFECTIVENESS] == UNKNOWN:
        _weigh(rows, memory, sack, walk.dnns[STATE], walk.worth[STATE])
        _copy(walk, STATE, BEST)
    for temperature in temperatures:
        if not upgrade and walk.worth[BEST, EFFECTIVENESS] >= THRESHOLD:
            return True
        _move(walk, 3 if upgrade else 2, len(rows.accuracy))
        _weigh(rows, memory, sack, walk.dnns[TRIED], walk.worth[TRIED])
        gain = _value(walk, TRIED, upgrade) - _value(walk, STATE, upgrade)
        walk.counts[0] += 1
        if gain >= 0 or _uniform(walk.random) < exp(gain / temperature):
            walk.counts[1] += 1
            _copy(walk, TRIED, STATE)
        if _value(walk, STATE, upgrade) > _value(walk, BEST, upgrade):
            _copy(walk, STATE, BEST)
    return False
