"""A plan at once, for while the scheduler has none: who is served stays, who is not finds a place.

One pass over the clients, no search: what it leaves on the table, the scheduler's next plan earns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jellyfish.profile import FloatArray
from jellyfish.scheduling.placing import plan_of
from jellyfish.scheduling.problem import Plan, Problem
from jellyfish.scheduling.staying import groups_now

Ints = NDArray[np.int64]


@dataclass
class _Places:
    """What each GPU serves so far, and what it could still serve.

    Args:
        fastest: (M, B + 1) frames/s of DNN m in batches of up to b; none at 0.
        dnn: (G,) what it runs.
        members: (G,) its clients.
        batch: (G, M) the largest batch that all of them stand; B where there are none.
        fps: (G,) of all of them.
    """

    fastest: FloatArray
    dnn: list[int]
    members: list[list[int]]
    batch: Ints
    fps: FloatArray

    def fits(self, fps: float, batch: Ints) -> NDArray[np.bool_]:
        """Return (G, M) where a client can come in: GPU g with DNN m serves it and its own."""
        dnns = np.arange(len(self.fastest))
        stood = np.minimum(self.batch, batch)
        fits: NDArray[np.bool_] = self.fastest[dnns, stood] > (self.fps + fps)[:, None]
        busy = self.fps > 0
        fits[busy] &= dnns <= np.array(self.dnn)[busy, None]  # what it runs is loaded
        return fits

    def take_group(self, gpu: int, members: Sequence[int], problem: Problem) -> bool:
        """Have `gpu` serve all of `members`, its own so far, if some DNN can; return whether."""
        stood = problem.largest_batch[members].min(axis=0)
        carried = self.fastest[np.arange(len(self.fastest)), stood]
        fits = np.flatnonzero(carried > problem.total_fps(members))
        fits = fits[fits <= self.dnn[gpu]]
        if not len(fits):
            return False
        self.take(members, problem, gpu, int(fits[problem.profile.accuracy[fits].argmax()]))
        return True

    def take(self, clients: Sequence[int], problem: Problem, gpu: int, dnn: int) -> None:
        """Have `gpu` serve `clients` too, with `dnn` from now on."""
        self.members[gpu] += clients
        self.batch[gpu] = np.minimum(self.batch[gpu], problem.largest_batch[clients].min(axis=0))
        self.fps[gpu] = problem.total_fps(self.members[gpu])
        self.dnn[gpu] = dnn


def solve(problem: Problem) -> Plan:
    """Return a feasible plan in which clients keep their GPUs, and the others get one if they can.

    Clients whose deadlines are the hardest to keep come last. A GPU that serves somebody may have
    to go down to a smaller DNN; it never goes up.
    """
    places = _empty(problem)
    waiting = [int(i) for i in np.flatnonzero(problem.servable) if not _served(problem, int(i))]
    for gpu, (_, members) in groups_now(problem).items():
        if not places.take_group(gpu, members, problem):
            waiting += members
    for client in sorted(waiting, key=lambda i: -int(problem.largest_batch[i].sum())):
        _place(problem, places, client)
    busy = [gpu for gpu, members in enumerate(places.members) if members]
    return plan_of(problem, [(places.dnn[gpu], places.members[gpu]) for gpu in busy], busy)


def _empty(problem: Problem) -> _Places:
    profile = problem.profile
    return _Places(
        fastest=profile.fastest,
        dnn=list(problem.start_dnns),
        members=[[] for _ in range(problem.gpus)],
        batch=np.full((problem.gpus, profile.dnns), profile.max_batch, np.int64),
        fps=np.zeros(problem.gpus),
    )


def _served(problem: Problem, client: int) -> bool:
    return bool(problem.initial_gpus) and problem.initial_gpus[client] is not None


def _place(problem: Problem, places: _Places, client: int) -> None:
    """Put a client where the least accuracy is lost by it, or nowhere."""
    fits = places.fits(float(problem.fps[client]), problem.largest_batch[client])
    if not fits.any():
        return
    accuracy = problem.profile.accuracy
    fps = places.fps + problem.fps[client]
    earned = accuracy * fps[:, None] - (accuracy[places.dnn] * places.fps)[:, None]  # (G, M)
    gpu, dnn = divmod(int(np.where(fits, earned, -np.inf).argmax()), problem.profile.dnns)
    places.take([client], problem, gpu, dnn)
