"""What must hold against another play of the same scenario: recovery and isolation.

The measure is the share of frames in time; the baseline a world without faults, or one in which
clients behave that are hostile here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

from jellyfish.records import FrameRow, Outcome
from tests.chaos.faults import GUEST
from tests.chaos.invariants import RECOVERED_S, SETTLED_S, last_healed_s
from tests.chaos.world import World

WINDOW_S = 5.0
MARGIN = 0.02  # of the share of frames in time, beyond what chance explains:
ERRORS, FEW_FRAMES = 2.0, 2  # standard errors of the difference, or so many frames


def in_time(rows: list[FrameRow], begin_s: float, end_s: float) -> tuple[int, int]:
    """Return how many of the frames captured in [begin, end) are in time, and of how many."""
    mine = [row for row in rows if begin_s <= row.capture_s < end_s]
    return sum(row.outcome is Outcome.OK for row in mine), len(mine)


def share(world: World, begin_s: float, end_s: float) -> float:
    """Return the mean share over clients; ticks that have no row count as missed.

    Clients count alike, whatever their rates: what a plan maximises first is how many it serves.
    """
    shares = [
        in_time(streamed.rows, begin_s, end_s)[0] / ((end_s - begin_s) * client.fps)
        for streamed, client in zip(world.streamed, world.scenario.clients, strict=True)
    ]
    return sum(min(1.0, share) for share in shares) / len(shares)


def recovery(world: World, play: Callable[..., World]) -> tuple[list[str], float]:
    """Some time after the last fault is over, all is as if there had been none.

    Returns also how long that took; NaN where it cannot be told.
    """
    healed_s = last_healed_s(world)
    if healed_s is None:
        return [], float("nan")
    begin_s = healed_s + RECOVERED_S
    end_s = min(begin_s + WINDOW_S, world.scenario.length_s - 0.5)
    if end_s - begin_s < 2.0:
        return [], float("nan")
    got = share(world, begin_s, end_s)
    if got >= 1 - MARGIN:
        return [], took(world, healed_s, None)
    until_s = min(world.scenario.length_s, end_s + 1.5)  # what comes later tells nothing
    fresh = play(replace(world.scenario.with_faults(()), length_s=until_s))
    # Under overload it changes from second to second who is served, with and without faults.
    want = min(share(fresh, begin_s, end_s), share(fresh, SETTLED_S, end_s))
    frames = sum(client.fps for client in world.scenario.clients) * (end_s - begin_s)
    chance = ERRORS * sqrt(2 * want * (1 - min(1.0, want)) / frames)
    if got < want - MARGIN - max(chance, FEW_FRAMES / frames):
        text = f"recovery: {got:.1%} of the frames in time at {begin_s:.1f} s; fresh: {want:.1%}"
        return [text], float("nan")
    return [], took(world, healed_s, fresh)


def isolation(world: World, play: Callable[..., World]) -> list[str]:
    """Hostile clients cost the others what as many that behave would cost, at most."""
    faults = world.scenario.faults
    if not faults or any(s.provoked or s.fault.target != "client" for s in world.struck):
        return []
    end_s = world.scenario.length_s - 0.5
    got = share(world, SETTLED_S, end_s)
    if got >= 1 - MARGIN:
        return []
    guests = [replace(fault, kind=GUEST) for fault in faults]
    want = share(play(world.scenario.with_faults(guests)), SETTLED_S, end_s)
    if got < want - MARGIN:
        return [f"isolation: {got:.1%} of the others' frames in time; with guests: {want:.1%}"]
    return []


def took(world: World, healed_s: float, fresh: World | None) -> float:
    """Return how long after healing one second was as good as a fresh engine's."""
    for k in range(60):
        begin_s = healed_s + k * 0.1
        want = 1.0 if fresh is None else share(fresh, begin_s, begin_s + 1.0)
        if share(world, begin_s, begin_s + 1.0) >= want - 2 * MARGIN:
            return k * 0.1
    return 6.0
