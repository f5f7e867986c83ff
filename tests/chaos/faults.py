"""Scenarios as data: clients, GPUs, load and faults; drawn by a seed, written to JSON and read.

A fault is {time_s, target, kind, state, for_s, value}. It strikes at its time or, where it names a
state, once its target is in that state; how is in tests.chaos.strikes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

STATES = ("starting", "loading", "running", "swapping", "draining")
LENGTH_S = 30.0
FIRST_S, LAST_S = 2.5, 16.0  # when faults strike
HEALED_S = 19.0  # by then all are over
HOSTILE_SHARE = 0.1  # of the seeds, with clients that are hostile and nothing else: for isolation
ODD_PLANS = (
    "a client short",
    "a GPU short",
    "no such GPU",
    "no such DNN",
    "batch 0",
    "all on one",
    "nonsense",
    "stale",
)


@dataclass(frozen=True)
class Kind:
    """How faults of a kind are drawn.

    Args:
        target: `gpu`, `planner`, `link`, `client` or `server`.
        for_s: shortest and longest time until it is over.
        values: one of these is its value; a pair of floats is a range.
    """

    target: str
    for_s: tuple[float, float] = (0.0, 0.0)
    values: Sequence[Any] = (None,)


KINDS: dict[str, Kind] = {
    "worker dies": Kind("gpu", values=(-9, -11, 1)),
    "worker hangs": Kind("gpu", values=("now", "run", "load", "evict")),
    "worker start hangs": Kind("gpu", (0.5, 3.0)),
    "worker starts fail": Kind("gpu", (0.5, 4.0), values=("exits", "cannot open")),
    "worker slow": Kind("gpu", (0.5, 5.0), values=(2.0, 20.0)),
    "worker pauses": Kind("gpu", (0.05, 2.0)),
    "worker errs": Kind("gpu", (0.1, 4.0)),
    "worker answers oddly": Kind(
        "gpu", (0.1, 3.0), values=("too few", "NaN boxes", "NaN times", "senseless")
    ),
    "worker answers twice": Kind("gpu", (0.1, 3.0)),
    "worker says garbage": Kind("gpu"),
    "worker cannot load": Kind("gpu", (0.5, 5.0)),
    "planner raises": Kind("planner", (0.3, 4.0)),
    "planner hangs": Kind("planner", (0.3, 4.0)),
    "planner slow": Kind("planner", (0.5, 4.0), values=(0.2, 3.0)),
    "planner plans oddly": Kind("planner", (0.3, 4.0), values=ODD_PLANS),
    "planner crashes": Kind("planner", (0.3, 4.0)),
    "link cut": Kind("link", (0.2, 6.0)),
    "link one-way": Kind("link", (0.2, 4.0), values=("up", "down")),
    "link reset": Kind("link"),
    "link zero window": Kind("link", (0.2, 4.0)),
    "link collapses": Kind("link", (0.5, 5.0), values=(0.01, 0.3)),
    "client floods": Kind("client", (1.0, 5.0)),
    "client repeats ids": Kind("client", (1.0, 5.0)),
    "client sends oversize": Kind("client", (1.0, 5.0)),
    "client sends bombs": Kind("client", (1.0, 5.0)),
    "client sends heavy frames": Kind("client", (1.0, 5.0)),
    "client never reads": Kind("client", (1.0, 5.0)),
    "client vanishes": Kind("client", (1.0, 3.0)),
    "client comes and goes": Kind("client", (1.0, 5.0)),
    "client lies": Kind("client", (1.0, 5.0)),
    "server stalls": Kind("server", values=(0.05, 2.0)),
    "server is stopped": Kind("server", values=("once", "twice")),
    "server is killed": Kind("server"),
    "disk full": Kind("server", (0.5, 5.0), values=("all", "plans", "clients", "state", "frames")),
    "disk stalls": Kind("server", (0.5, 5.0)),
    "log pipe full": Kind("server", (0.5, 5.0)),
    "wall clock steps": Kind("server", values=(-3600.0, 3600.0)),
}
EVERYWHERE = "all"
GUEST = "client behaves"  # no fault: what a hostile client is compared with


@dataclass(frozen=True)
class Client:
    """A client that behaves: it streams to the end."""

    fps: float
    slo_ms: float
    start_s: float
    mbps: tuple[float, ...]
    step_s: float


@dataclass(frozen=True)
class Fault:
    """See the module."""

    time_s: float
    target: str
    kind: str
    state: str = ""
    for_s: float = 0.0
    value: Any = None

    @property
    def over_s(self) -> float:
        return self.time_s + self.for_s


@dataclass(frozen=True)
class Scenario:
    """All that a run depends on.

    Args:
        latency_ms: of the smallest DNN at batch 1; all others follow.
        jitter: sigma and cap of batch times.
    """

    seed: int
    gpus: int
    latency_ms: float
    clients: tuple[Client, ...]
    faults: tuple[Fault, ...]
    jitter: tuple[float, float] = (0.06, 1.3)
    length_s: float = LENGTH_S

    def with_faults(self, faults: Sequence[Fault]) -> Scenario:
        return replace(self, faults=tuple(faults))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Scenario:
        clients = tuple(Client(**{**c, "mbps": tuple(c["mbps"])}) for c in value["clients"])
        faults = tuple(Fault(**fault) for fault in value["faults"])
        jitter = tuple(value["jitter"])
        return Scenario(**{**value, "clients": clients, "faults": faults, "jitter": jitter})


def draw(seed: int, kinds: Sequence[str] = ()) -> Scenario:
    """Return the scenario of a seed, its faults of `kinds` alone where some are named."""
    rng = Random(seed)
    gpus = rng.randint(1, 3)
    count = 32 if rng.random() < 0.1 else rng.randint(2, 6)
    # Mostly little: a seed costs what its frames do.
    least_fps = count * (1.0 if count == 32 else 3.0)
    total_fps = least_fps + (60.0 - least_fps) * rng.random() ** 4
    load = rng.uniform(0.2, 1.5)
    # A GPU does 1000 / latency frames/s one by one, and about twice as many in batches.
    latency_ms = min(60.0, max(4.0, 1600.0 * load * gpus / total_fps))
    clients = tuple(_client(rng, total_fps / count, latency_ms) for _ in range(count))
    if not kinds:
        hostile = [name for name, kind in KINDS.items() if kind.target == "client"]
        kinds = hostile if rng.random() < HOSTILE_SHARE else list(KINDS)
    faults = tuple(_faults(rng, gpus, count, kinds))
    return Scenario(seed, gpus, round(latency_ms, 2), clients, faults)


def _client(rng: Random, mean_fps: float, latency_ms: float) -> Client:
    # A batch on the smallest DNN takes latency * (1 + batch) / 2; one GPU must carry the rate.
    fps = round(min(max(1.0, mean_fps * rng.uniform(0.6, 1.4)), 1200.0 / latency_ms), 2)
    batch = next(b for b in range(1, 7) if 2000.0 * b / (latency_ms * (1 + b)) > 1.2 * fps)
    slo_ms = round(latency_ms * (1 + batch) * rng.uniform(1.3, 3.0) + rng.uniform(60.0, 200.0))
    needs_mbps = fps * 0.05
    mbps = tuple(round(needs_mbps * rng.uniform(1.5, 20.0), 2) for _ in range(4))
    return Client(fps, slo_ms, round(rng.uniform(0.0, 1.0), 3), mbps, 7.0)


def _faults(rng: Random, gpus: int, clients: int, kinds: Sequence[str]) -> list[Fault]:
    faults: list[Fault] = []
    for _ in range(rng.randint(2, 8)):
        if faults and rng.random() < 1 / 3:  # beside another, or within its recovery
            beside = rng.choice(faults)
            time_s = beside.time_s + rng.uniform(0.0, beside.for_s + 2.0)
        else:
            time_s = rng.uniform(FIRST_S, LAST_S)
        faults.append(_fault(rng, min(LAST_S, time_s), gpus, clients, kinds))
    return sorted(faults, key=lambda fault: fault.time_s)


def _fault(rng: Random, time_s: float, gpus: int, clients: int, kinds: Sequence[str]) -> Fault:
    name = rng.choice(kinds)
    kind = KINDS[name]
    low, high = kind.for_s
    number = {"gpu": gpus, "link": clients}.get(kind.target, 0)
    which = rng.randrange(number) if number else None
    if number and rng.random() < 0.1:
        which = EVERYWHERE
    values = list(kind.values)
    ranged = len(values) == 2 and all(isinstance(v, float) for v in values)
    value = round(rng.uniform(*values), 4) if ranged else rng.choice(values)
    return Fault(
        time_s=round(time_s, 6),
        target=kind.target if which is None else f"{kind.target}:{which}",
        kind=name,
        state=rng.choice(STATES) if rng.random() < 0.5 else "",
        for_s=round(min(rng.uniform(low, high), HEALED_S - time_s), 4),
        value=value,
    )
