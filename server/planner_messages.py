"""What the server and its planner's process tell each other, pickled over their socket pair."""

from __future__ import annotations

from dataclasses import dataclass

from jellyfish.scheduling.problem import Plan, Problem


@dataclass(frozen=True)
class Request:
    """A problem to solve."""

    id: int
    problem: Problem
    seed: int
    iterations: int | None


@dataclass(frozen=True)
class Reply:
    """The plan for request `id`, and the ms it took."""

    id: int
    plan: Plan
    solve_ms: float


@dataclass(frozen=True)
class Failure:
    """Why request `id` has no plan."""

    id: int
    text: str
