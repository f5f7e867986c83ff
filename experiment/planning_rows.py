"""One plan of one solver for one instance, and the row that tells of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyarrow as pa

from experiment.planning import instance
from experiment.planning_study import OPTIMUM, WORLD, Contender, Unit
from experiment.provenance import cpu
from jellyfish.scheduling.problem import Budget, Plan, Problem, check
from jellyfish.scheduling.solvers import solver, warm

LATENCIES = "emulated synthetic"  # of every DNN in these simulations


@dataclass(frozen=True, slots=True)
class Row:
    """One plan. Bounds are those that `optimum` gives, NaN from other solvers."""

    world: str
    latencies: str
    machine: str
    gpus: int
    clients: int
    seed: int
    solver: str
    effectiveness: float
    accuracy: float
    effectiveness_bound: float
    accuracy_bound: float
    ended: bool  # before its time limit, if it has one; of `optimum`: with a proof
    cpu_ms: float
    wall_ms: float


_ARROW = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in fields(Row)])


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Return `rows` as an arrow table."""
    everything = list(rows)
    columns = [pa.array([getattr(row, f.name) for row in everything], type=f.type) for f in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def load(name: str) -> None:
    """Load all that the solver called `name` needs: no measured plan waits for it."""
    warm(name)
    solver(name)(instance(1, 1, 0), 0, 1)


def row(unit: Unit, seed: int) -> Row:
    """Plan the instance `seed` of a unit and measure how long that takes.

    Raises:
        InfeasiblePlan: the solver's plan breaks a rule.
    """
    size = unit.size
    problem = instance(size.gpus, size.clients, seed)
    wall, spent = time.perf_counter(), time.process_time()
    solved = _solved(unit.contender, problem, seed, spent)
    spent, wall = time.process_time() - spent, time.perf_counter() - wall
    plan = check(problem, solved.plan)
    return Row(
        world=WORLD[unit.stage],
        latencies=LATENCIES,
        machine=cpu(),
        gpus=size.gpus,
        clients=size.clients,
        seed=seed,
        solver=unit.contender.solver,
        effectiveness=plan.effectiveness,
        accuracy=plan.accuracy,
        effectiveness_bound=solved.effectiveness_bound,
        accuracy_bound=solved.accuracy_bound,
        ended=solved.ended,
        cpu_ms=spent * 1000,
        wall_ms=wall * 1000,
    )


@dataclass(frozen=True)
class _Solved:
    plan: Plan
    ended: bool
    effectiveness_bound: float = float("nan")
    accuracy_bound: float = float("nan")


def _solved(contender: Contender, problem: Problem, seed: int, start: float) -> _Solved:
    """Return what the solver answers; its time limit counts from `start` on the CPU's clock."""
    budget: Budget = contender.steps
    end = float("inf")
    if contender.limit_s is not None:
        end = start + contender.limit_s
        budget = lambda: time.process_time() < end  # noqa: E731 - a name for it says no more
    if contender.solver == OPTIMUM:
        from jellyfish.scheduling import optimum

        proof = optimum.prove(problem, budget)
        return _Solved(proof.plan, proof.proven, proof.effectiveness_bound, proof.accuracy_bound)
    plan = solver(contender.solver)(problem, seed, budget)
    return _Solved(plan, time.process_time() < end)
