"""The published simulations of the scheduler alone: which problems, and which solvers meet them.

Two stages. `quality` compares plans with the proven optimum, `timings` measures how long planning
takes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from experiment.grid import Config, digest
from jellyfish.errors import ConfigError

QUALITY, TIMINGS = "quality", "timings"
WORLD = {QUALITY: "simulated", TIMINGS: "measured"}  # stage -> what its rows say they are
OPTIMUM = "optimum"
AT_ONCE = 10  # instances of a unit: what a kill may lose
SEEDS_APART = 1_000_000  # between the instances of one of the config's seeds and the next


@dataclass(frozen=True)
class Contender:
    """A solver and what it may spend on a plan: steps, CPU time, or what it takes."""

    name: str  # in figures
    solver: str
    steps: int | None = None
    limit_s: float | None = None


@dataclass(frozen=True)
class Size:
    """How large a problem is."""

    gpus: int
    clients: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.gpus}x{self.clients}"


@dataclass(frozen=True)
class Study:
    """A stage as the config asks for it."""

    stage: str
    sizes: tuple[Size, ...]
    contenders: tuple[Contender, ...]
    instances: int  # of each size
    first_seed: int


@dataclass(frozen=True)
class Unit:
    """Some instances of a size under one solver: one folder under results/planning/."""

    stage: str
    size: Size
    contender: Contender
    seeds: tuple[int, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that its result depends on, but for code."""
        spent = {key: value for key, value in asdict(self.contender).items() if key != "name"}
        return {"stage": self.stage, **asdict(self.size), **spent, "seeds": list(self.seeds)}

    @property
    def key(self) -> str:
        """Name of its folder."""
        named = f"{self.stage}-{self.size.name}-{self.contender.solver}-{self.seeds[0]}"
        return f"{named}-{digest(self.settings)}"


def study(config: Config, stage: str) -> Study:
    """Return what `config` asks of `stage`.

    Raises:
        ConfigError: two solvers have one name.
    """
    asked = config["planning"][stage]
    contenders = [Contender(**one) for one in asked["solvers"]]
    if stage == QUALITY:  # the yardstick
        contenders.append(Contender(OPTIMUM, OPTIMUM, limit_s=float(asked["proof_s"])))
    for name, times in Counter(one.name for one in contenders).items():
        if times > 1:
            raise ConfigError(f"config: planning.{stage}.solvers: two are called {name!r}")
    sizes = (Size(g, g * per) for per, g in product(asked["clients_per_gpu"], asked["gpus"]))
    return Study(
        stage=stage,
        sizes=tuple(sizes),
        contenders=tuple(contenders),
        instances=int(asked["instances"]),
        first_seed=int(config["seed"]) * SEEDS_APART,
    )


def units(asked: Study, size: Size, contender: Contender, seeds: tuple[int, ...]) -> list[Unit]:
    """Return the units that `contender` has to do; more instances change none that is full."""
    parts = (seeds[i : i + AT_ONCE] for i in range(0, len(seeds), AT_ONCE))
    return [Unit(asked.stage, size, contender, part) for part in parts]
