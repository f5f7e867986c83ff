"""Which instances of the published simulations count.

Those of which the published mapping, with the random DNNs that the GPUs run at first, maps enough
clients: all of them to judge plans, three in four to measure time.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiment.planning import instance
from experiment.planning_study import QUALITY, TIMINGS, Size, Study
from jellyfish.errors import ConfigError
from jellyfish.scheduling.mapping import map_clients

MAPPED = {QUALITY: 1.0, TIMINGS: 0.75}  # stage -> share of clients that must be mapped
REJECTED_IN_A_ROW = 1000  # after which a size is taken for hopeless


@dataclass(frozen=True)
class Kept:
    """Seeds of the instances of a size that count, and how many between them do not."""

    seeds: tuple[int, ...]
    rejected: int


def kept(asked: Study, size: Size) -> Kept:
    """Return the seeds of the first instances of `size` that count, in order.

    Raises:
        ConfigError: hardly any instance of that size counts.
    """
    seeds: list[int] = []
    seed, in_a_row = asked.first_seed, 0
    while len(seeds) < asked.instances:
        counts = mapped_share(size, seed) >= MAPPED[asked.stage]
        seeds += [seed] * counts
        seed, in_a_row = seed + 1, 0 if counts else in_a_row + 1
        if in_a_row == REJECTED_IN_A_ROW:
            raise ConfigError(
                f"config: planning.{asked.stage}: {in_a_row} instances of {size.name} (GPUs x "
                f"clients) in a row map fewer than {MAPPED[asked.stage]:.0%} of their clients; "
                "want fewer clients_per_gpu"
            )
    return Kept(tuple(seeds), seed - asked.first_seed - len(seeds))


def mapped_share(size: Size, seed: int) -> float:
    """Return the share of an instance's clients that the published mapping maps at first."""
    problem = instance(size.gpus, size.clients, seed)
    mapped = map_clients(problem, problem.start_dnns).clients
    return sum(gpu is not None for gpu in mapped) / problem.clients
