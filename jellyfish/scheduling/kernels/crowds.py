"""Two GPUs planned anew, however many clients they have.

The exact search keeps clients in the bits of one word. Where there are more, those who send least
go in lumps. Little is lost by that: there are many of them to fill a gap with.
"""

from __future__ import annotations

import numpy as np

from jellyfish.scheduling.kernels.arrays import (
    CROWD,
    NOBODY,
    Ints,
    Scratch,
    State,
    Task,
    constant,
)
from jellyfish.scheduling.kernels.compiling import compiled, inlined
from jellyfish.scheduling.kernels.pairs import index, replan_exactly

ANY_BATCH = 1 << 40
FIRST, SECOND = constant(0), constant(1)  # GPUs of a plan of lumps


@compiled
def replan(task: Task, state: State, g: int, h: int, extra: int, s: Scratch) -> bool:
    """Plan two GPUs anew, or one if `h` is `g`, with client `extra` unless that is negative.

    Tell whether anything changed.
    """
    n = state.filled[g] + (0 if g == h else state.filled[h]) + (1 if extra >= 0 else 0)
    if n > CROWD:
        return _replan_lumps(task, state, g, h, extra, s)
    if n == 0 or not replan_exactly(task, state, g, h, extra, s):
        return False
    index(task, state, g)
    index(task, state, h)
    return True


@inlined
def _replan_lumps(task: Task, state: State, g: int, h: int, extra: int, s: Scratch) -> bool:
    first, second = state.filled[g], 0 if g == h else state.filled[h]
    n = first + second + (1 if extra >= 0 else 0)
    who, lump = np.empty(n, np.int64), np.empty(n, np.int64)
    who[:first] = state.members[g, :first]
    who[first : first + second] = state.members[h, :second]
    room = CROWD - (1 if extra >= 0 else 0)
    here = _lump(task, who[:first], max(room // 2, room - second), lump[:first])
    there = _lump(task, who[first : first + second], room - here, lump[first : first + second])
    lump[first : first + second] += here
    if extra >= 0:
        who[n - 1], lump[n - 1] = extra, here + there
    lumped = _of_lumps(task, who, lump)
    some = _plan(lumped, here, there)
    some.dnn[0], some.dnn[1] = state.dnn[g], state.dnn[h]
    index(lumped, some, FIRST)
    index(lumped, some, SECOND)
    last = here + there if extra >= 0 else NOBODY
    other = FIRST if g == h else SECOND
    if not replan_exactly(lumped, some, FIRST, other, last, s):
        return False
    to_second = np.zeros(here + there + 1, np.bool_)
    if g != h:
        to_second[some.members[1, : some.filled[1]]] = True
        _seat(task, state, h, some.dnn[1], who[to_second[lump]])
    _seat(task, state, g, some.dnn[0], who[~to_second[lump]])
    return True


@compiled
def _lump(task: Task, some: Ints, most: int, lump: Ints) -> int:
    """Divide clients, largest rate first, into at most so many lumps; return how many.

    Those who send most are alone.
    """
    n = len(some)
    if n <= most:
        lump[:] = np.arange(n)
        return n
    size = 2
    while size * (n - most + 1) > n * (size - 1):
        size += 1
    alone = n - (size * (n - most + 1)) // (size - 1)
    lump[:alone] = np.arange(alone)
    choice = np.empty(n - alone, np.int64)
    for a in range(n - alone):
        choice[a] = task.batch[some[alone + a]].sum()
    order = np.argsort(choice, kind="mergesort")
    for a in range(n - alone):  # with those who have as much choice
        lump[alone + order[a]] = alone + a // size
    return int(alone + (n - alone + size - 1) // size)


@compiled
def _of_lumps(task: Task, who: Ints, lump: Ints) -> Task:
    """Return the task in which each lump is a client."""
    lumps = lump.max() + 1
    weight, batch = np.zeros(lumps, np.int64), np.full((lumps, len(task.accuracy)), ANY_BATCH)
    for a in range(len(who)):
        weight[lump[a]] += task.weight[who[a]]
        batch[lump[a]] = np.minimum(batch[lump[a]], task.batch[who[a]])
    return Task(weight, batch, task.capacity, task.accuracy, task.kinds)


@compiled
def _plan(lumped: Task, here: int, there: int) -> State:
    """Return a plan with the first `here` lumps on one GPU and the next `there` on another."""
    types = (2, lumped.capacity.shape[0], lumped.capacity.shape[1])
    members, none = np.zeros((2, len(lumped.weight)), np.int64), np.zeros(2, np.int64)
    members[0, :here] = np.argsort(-lumped.weight[:here])
    members[1, :there] = here + np.argsort(-lumped.weight[here : here + there])
    return State(
        members,
        np.array([here, there]),
        np.zeros(2, np.int64),
        np.empty(types, np.int64),
        np.empty(types, np.int64),
        np.zeros(2),
        none,
        none,
        np.zeros(2),
        np.zeros(2),
        none,
        none,
    )


@compiled
def _seat(task: Task, state: State, g: int, dnn: int, some: Ints) -> None:
    """Let GPU g serve these clients, and no others."""
    state.dnn[g], state.filled[g] = dnn, len(some)
    state.members[g, : len(some)] = some[np.argsort(-task.weight[some], kind="mergesort")]
    index(task, state, g)
