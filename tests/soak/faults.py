"""Faults as data, drawn by a seed: what strikes whom, when, and for how long.

A fault has the form that tests/chaos gives it: {time_s, target, kind, state, for_s, value}. Here
it strikes at its time, or once its predecessor's recovery has been measured if that takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

WARM_S = 8.0  # before the first fault
CALM_S = 2.0  # after the last one
HEAL_S, PROBE_S, AFTER_S = 2.0, 2.0, 5.0  # see `allowed_s`; how long is measured then
START_S = 4.0  # what a worker's or the server's start is taken for when a schedule is drawn


@dataclass(frozen=True)
class Fault:
    """See the module. A fault without a length of its own (`for_s` 0) is over when it struck."""

    time_s: float
    target: str
    kind: str
    state: str = ""
    for_s: float = 0.0
    value: Any = None

    @property
    def party(self) -> str:
        """Which kind of part it hits: gpu, planner, link, client or server."""
        return self.target.partition(":")[0]

    @property
    def number(self) -> int:
        """Which one of these."""
        return int(self.target.partition(":")[2] or 0)


@dataclass(frozen=True)
class Kind:
    """How faults of a kind are drawn: of whom, for how long, with which values."""

    target: str
    for_s: tuple[float, float] = (0.0, 0.0)
    values: Sequence[Any] = (None,)


KINDS: dict[str, Kind] = {
    "worker dies": Kind("gpu", values=(-9, -11)),
    "worker hangs": Kind("gpu"),  # stopped for good
    "worker pauses": Kind("gpu", (0.05, 2.0)),
    "planner crashes": Kind("planner"),
    "planner hangs": Kind("planner", (0.3, 4.0)),
    "link cut": Kind("link", (0.2, 6.0)),
    "link one-way": Kind("link", (0.2, 4.0), values=("up", "down")),
    "link reset": Kind("link"),
    "link collapses": Kind("link", (1.0, 4.0), values=(0.05, 0.3)),  # Mbit/s
    "client floods": Kind("client", (1.0, 5.0)),
    "client repeats ids": Kind("client", (1.0, 5.0)),
    "client sends oversize": Kind("client", (1.0, 5.0)),
    "client sends bombs": Kind("client", (1.0, 5.0)),
    "client never reads": Kind("client", (1.0, 5.0)),
    "client vanishes": Kind("client", (1.0, 5.0)),
    "client comes and goes": Kind("client", (1.0, 5.0)),
    "client lies": Kind("client", (1.0, 5.0)),
    "server stalls": Kind("server", (0.05, 2.0)),
    "server is killed": Kind("server"),
    "server is stopped": Kind("server", values=("once", "twice")),
    "disk full": Kind("server", (2.0, 5.0)),
}
HOSTILE = tuple(name for name, kind in KINDS.items() if kind.target == "client")
RESTARTS = ("server is killed", "server is stopped")


def allowed_s(fault: Fault, start_s: float) -> float:
    """Return within how long after its end all must be as before.

    Args:
        fault: what struck.
        start_s: what the start of a worker takes here.
    """
    return HEAL_S + PROBE_S + (start_s if fault.party in ("gpu", "server") else 0.0)


def draw(
    seed: int, length_s: float, gpus: int, clients: int, kinds: Sequence[str] = tuple(KINDS)
) -> list[Fault]:
    """Return faults for a soak of that length: each kind once before any comes again."""
    rng = Random(seed)
    faults: list[Fault] = []
    at_s = WARM_S
    for name in _rounds(rng, kinds):
        fault = _fault(rng, round(at_s, 3), name, gpus, clients)
        restart_s = START_S if name in RESTARTS else 0.0
        at_s += fault.for_s + restart_s + allowed_s(fault, START_S) + AFTER_S + rng.random()
        if at_s > length_s - CALM_S:
            break
        faults.append(fault)
    return faults


def _rounds(rng: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from rng.sample(list(kinds), len(kinds))


def _fault(rng: Random, time_s: float, name: str, gpus: int, clients: int) -> Fault:
    kind = KINDS[name]
    number = {"gpu": gpus, "link": clients}.get(kind.target, 0)
    values = list(kind.values)
    ranged = len(values) == 2 and all(isinstance(v, float) for v in values)
    return Fault(
        time_s=time_s,
        target=f"{kind.target}:{rng.randrange(number)}" if number else kind.target,
        kind=name,
        for_s=round(rng.uniform(*kind.for_s), 3),
        value=round(rng.uniform(*values), 3) if ranged else rng.choice(values),
    )
