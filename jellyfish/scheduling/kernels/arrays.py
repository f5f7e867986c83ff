"""What kernels work on: named tuples of arrays.

Clients and DNNs are indices; DNNs come by accuracy, ascending. Frame rates and capacities are whole
numbers of some unit.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CROWD = 62  # clients of two GPUs that fit one word of bits
NEAR = 1e-9  # relative; values that differ by less are equal


def constant(number: int) -> int:
    """Return a number that kernels may be called with without being compiled anew for it.

    They would be for a literal, and for a global that is an int.
    """
    return cast(int, np.int64(number))


NOBODY = constant(-1)
NOW, LATER = constant(0), constant(1)  # when a GPU changed
NEXT = constant(1)  # places apart

PRICE = 0  # of a GPU, in `State.numbers`
CLOCK = 1  # pairs looked at
BOUND = 2  # that prices allow
STARTED = 3  # starts there were
ROUNDS = 4  # for how many more to press
UNAVOIDABLE = 5  # clients that must wait at least; -1: not known yet
NUMBERS = 6


class Kinds(NamedTuple):
    """Clients that are alike to every DNN: K kinds, far fewer than clients where rates are few.

    Args:
        of: (C,) each client's kind.
        weight: (K,) frame rate, in units.
        batch: (K, M) as in `Task`.
        share: (K, M) GPUs that a unit takes; huge where `batch` is 0.
        wish: (K, M) the DNNs that some price per GPU makes the best choice, by falling share.
        turn: (K, M) the price from which on each of these is the best.
        wishes: (K,) how many.
    """

    of: Ints
    weight: Ints
    batch: Ints
    share: Floats
    wish: Ints
    turn: Floats
    wishes: Ints


class Task(NamedTuple):
    """What is to be planned.

    Args:
        weight: (C,) frame rate, in units.
        batch: (C, M) largest batch at which DNN m can serve the client; 0 for none.
        capacity: (M, B + 1) units that a GPU carries when its batch is at most b.
        accuracy: (M,) ascending.
        kinds: of clients.
    """

    weight: Ints
    batch: Ints
    capacity: Ints
    accuracy: Floats
    kinds: Kinds


class State(NamedTuple):
    """A plan under way.

    Args:
        members: (G, C) clients of each GPU, the first `filled[g]` of a row, largest rate first.
        filled: (G,) how many.
        dnn: (G,) what it runs.
        bits: (G, M, B + 1) which of its clients, by place, DNN m can serve in batches of b.
        load: (G, M, B + 1) their frame rates together.
        loss: (G,) what it falls short of the bound that prices allow.
        changed: (G,) when it last changed, on the clock of pairs looked at.
        waiting: (C + 1,) clients without a GPU, and in the last place their number.
        worth: (K,) of a unit of each kind of client, at the price `numbers[PRICE]` of a GPU.
        numbers: by PRICE, CLOCK and so on.
        order: (G,) in which pairs are looked at; then the two places that are next.
        random: (1,) state of the generator.
    """

    members: Ints
    filled: Ints
    dnn: Ints
    bits: Ints
    load: Ints
    loss: Floats
    changed: Ints
    waiting: Ints
    worth: Floats
    numbers: Floats
    order: Ints
    random: Ints


class Scratch(NamedTuple):
    """Room to work in: rows of CROWD (+ 2) numbers, and of one per DNN and batch size."""

    who: Ints
    line: Ints
    sizes: Ints
    bits: Ints
    have: Ints
    take: Ints
    best: Ints
    keep: Ints
    offers: Ints
    saved: Ints
