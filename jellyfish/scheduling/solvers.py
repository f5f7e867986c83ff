"""Solvers by the names that policies give them."""

from __future__ import annotations

from typing import Protocol

from jellyfish.errors import ConfigError
from jellyfish.scheduling import static
from jellyfish.scheduling.problem import Budget, Plan, Problem


class Solver(Protocol):
    """A scheduler: pure, and the same plan for the same arguments if the budget is a number."""

    def __call__(self, problem: Problem, seed: int, budget: Budget = None) -> Plan:
        """Return a feasible plan.

        Args:
            problem: clients, GPUs and what these run now.
            seed: of whatever the solver draws.
            budget: its iterations, or whom it asks now and then whether to go on; None is the
                solver's own effort.
        """


def _optimum(problem: Problem, seed: int, budget: Budget = None) -> Plan:
    # HiGHS takes longer to import than most servers need it.
    from jellyfish.scheduling import optimum

    return optimum.solve(problem, seed, budget)


def _jellyfish(problem: Problem, seed: int, budget: Budget = None) -> Plan:
    # Nor is numba needed where another solver is named.
    from jellyfish.scheduling import jellyfish

    return jellyfish.solve(problem, seed, budget)


def _paper(problem: Problem, seed: int, budget: Budget = None) -> Plan:
    from jellyfish.scheduling import paper

    return paper.solve(problem, seed, budget)


SOLVERS: dict[str, Solver] = {
    "jellyfish": _jellyfish,
    "paper": _paper,
    "optimum": _optimum,
}
"""Those whose plans are feasible."""

BASELINES: dict[str, Solver] = {"static": static.solve}
"""Those that do not try."""


def solver(name: str) -> Solver:
    """Return the solver called `name`.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    known = SOLVERS | BASELINES
    if name not in known:
        raise ConfigError(f"no solver {name!r}; there are: {', '.join(known)}")
    return known[name]


def warm(name: str) -> None:
    """Load what the solver called `name` has compiled, so that its first plan does not wait."""
    named = solver(name)
    if named is _jellyfish:
        from jellyfish.scheduling import jellyfish

        jellyfish.warm()
    elif named is _paper:
        from jellyfish.scheduling import paper

        paper.warm()
