"""Solvers by the names that policies give them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

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


def _module(name: str) -> Any:
    # Nobody waits for HiGHS or numba where another solver is named.
    return import_module(f"jellyfish.scheduling.{name}")


def _solver(name: str) -> Solver:
    def solve(problem: Problem, seed: int, budget: Budget = None) -> Plan:
        plan: Plan = _module(name).solve(problem, seed, budget)
        return plan

    return solve


COMPILED = ("jellyfish", "paper")
SOLVERS: dict[str, Solver] = {name: _solver(name) for name in (*COMPILED, "optimum")}
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
    solver(name)
    if name in COMPILED:
        _module(name).warm()
