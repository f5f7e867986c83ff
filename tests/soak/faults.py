"""Which faults strike whom and when, drawn by a seed: those of tests/chaos that real parts know.

They have the same form. Here a fault strikes at its time, or once the recovery of the one before
has been measured if that takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tests.chaos.faults import EVERYWHERE, Fault, Kind
from tests.chaos.faults import KINDS as SIMULATED

GPUS, CLIENTS = 2, 4
WARM_S = 8.0  # before the first fault
CALM_S = 2.0  # after the last one
HEAL_S, PROBE_S, AFTER_S = 2.0, 2.0, 5.0  # see `allowed_s`; how long is measured then
START_S = 4.0  # what a worker's or the server's start is taken for when a schedule is drawn


BOTH_WORLDS = (
    *("worker dies", "worker pauses", "planner crashes", "planner hangs"),
    *("link cut", "link one-way", "link reset", "link collapses"),
    *("client floods", "client repeats ids", "client sends oversize", "client sends bombs"),
    *("client never reads", "client vanishes", "client comes and goes", "client lies"),
    *("server stalls", "server is killed", "server is stopped"),
)
KINDS: dict[str, Kind] = {
    **{name: SIMULATED[name] for name in BOTH_WORLDS},
    "worker hangs": Kind("gpu", values=("now",)),
    "disk full": Kind("server", (2.0, 5.0)),
}
RESTARTS = ("server is killed", "server is stopped")


def party(fault: Fault) -> str:
    """Return which kind of part a fault hits: gpu, planner, link, client or server."""
    return fault.target.partition(":")[0]


def numbers(fault: Fault) -> list[int]:
    """Return which GPUs, or which clients' links, a fault hits."""
    which, count = fault.target.partition(":")[2], GPUS if party(fault) == "gpu" else CLIENTS
    return list(range(count)) if which == EVERYWHERE else [int(which or 0) % count]


def lasts_s(fault: Fault) -> float:
    """Return for how long a fault lasts, as it says."""
    return float(fault.value) if fault.kind == "server stalls" else fault.for_s


def allowed_s(fault: Fault, start_s: float) -> float:
    """Return within how long after its end all must be as before.

    Args:
        fault: what struck.
        start_s: what the start of a worker takes here.
    """
    return HEAL_S + PROBE_S + (start_s if party(fault) in ("gpu", "server") else 0.0)


def draw(seed: int, length_s: float, kinds: Sequence[str] = tuple(KINDS)) -> list[Fault]:
    """Return faults for a soak of that length: each kind once before any comes again."""
    rng = Random(seed)
    faults: list[Fault] = []
    at_s = WARM_S
    for name in _rounds(rng, kinds):
        fault = _fault(rng, round(at_s, 3), name)
        restart_s = START_S if name in RESTARTS else 0.0
        at_s += lasts_s(fault) + restart_s + allowed_s(fault, START_S) + AFTER_S + rng.random()
        if at_s > length_s - CALM_S:
            break
        faults.append(fault)
    return faults


def _rounds(rng: Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from rng.sample(list(kinds), len(kinds))


def _fault(rng: Random, time_s: float, name: str) -> Fault:
    kind = KINDS[name]
    number = {"gpu": GPUS, "link": CLIENTS}.get(kind.target, 0)
    values = list(kind.values)
    ranged = len(values) == 2 and all(isinstance(v, float) for v in values)
    return Fault(
        time_s=time_s,
        target=f"{kind.target}:{rng.randrange(number)}" if number else kind.target,
        kind=name,
        for_s=round(rng.uniform(*kind.for_s), 3),
        value=round(rng.uniform(*values), 3) if ranged else rng.choice(values),
    )
