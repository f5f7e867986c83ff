"""Solvers by the names that policies give them."""

from __future__ import annotations

from typing import Protocol

from jellyfish.errors import ConfigError
from jellyfish.scheduling import paper
from jellyfish.scheduling.problem import Plan, Problem


class Solver(Protocol):
    """A scheduler: pure, and the same plan for the same arguments."""

    def __call__(self, problem: Problem, seed: int, iterations: int | None = None) -> Plan:
        """Return a feasible plan; `iterations` bounds the effort, None is the solver's own."""


SOLVERS: dict[str, Solver] = {"paper": paper.solve}


def solver(name: str) -> Solver:
    """Return the solver called `name`.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    if name not in SOLVERS:
        raise ConfigError(f"no solver {name!r}; there are: {', '.join(SOLVERS)}")
    return SOLVERS[name]
