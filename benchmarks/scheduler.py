"""The schedulers' numbers: `python -m benchmarks.scheduler [--instances N] [--seed S] [--quick]`.

Quality against the proven optimum or the bound, and CPU time, on instances like those of the
published simulations with the synthetic profile (experiment.planning). Each line says whether it
reaches the project's goal for its size, or at least its floor. Each instance is solved afresh:
budgets and all that is worked out from them are part of the price; importing and compiling are not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from experiment.planning import instance
from jellyfish.files.problems import problem_from_json
from jellyfish.scheduling import jellyfish, optimum, paper
from jellyfish.scheduling.problem import Plan, Problem, check

PROOF_S = 60.0  # after which a bound must do
SEED = 90_001  # none of the instances that anything was tuned on
PUBLISHED_MS = 9808.0  # what the published implementation takes at 16 x 160 on such a machine
REFERENCE = Path(__file__).parents[1] / "tests" / "data" / "reference_cases.jsonl.gz"
FIELDS = ("gpus", "profile", "fps", "slo_ms", "bandwidth_kbps", "initial_dnns")
HEADER = (
    "| size | solver | ms p50 | ms p99 | of | mean | min | best "
    "| effectiveness | floor | moonshot | reached |"
)

Run = Callable[[Problem, int], Plan]


@dataclass(frozen=True)
class Goal:
    """What a line is to reach: ms (p99), and the ratio's mean and least."""

    ms: float = float("inf")
    mean: float = 0.0
    least: float = 0.0

    def __str__(self) -> str:
        parts = [f"<= {self.ms:g} ms"] if self.ms < float("inf") else []
        parts += [f"mean >= {self.mean:g}"] if self.mean else []
        parts += [f"min >= {self.least:g}"] if self.least else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Case:
    """A problem, the accuracy that no plan exceeds, and the optimum's effectiveness."""

    problem: Problem
    bound: float
    effectiveness: float


@dataclass(frozen=True)
class Line:
    """A solver on a size: how it is named and run, and what it is to reach."""

    name: str
    run: Run
    floor: Goal
    moonshot: Goal


def cases(gpus: int, clients: int, seed: int, count: int, proven: bool) -> Iterator[Case]:
    """Yield instances in which every client can be served, with their bounds."""
    while count:
        problem = instance(gpus, clients, seed)
        seed += 1
        if not problem.servable.all():
            continue
        if proven:
            found = optimum.prove(problem, _until(time.process_time, PROOF_S))
            if found.plan.effectiveness < 1:
                continue
            yield Case(problem, found.accuracy_bound, found.plan.effectiveness)
        else:
            yield Case(problem, jellyfish.accuracy_bound(problem), 1.0)
        count -= 1


def within(ms: float) -> Run:
    """Return the `jellyfish` solver with a limit on its CPU time.

    What comes after the search, a step that has begun and the plan itself, is set aside.
    """

    def solve(problem: Problem, seed: int) -> Plan:
        after_ms = 0.2 + 0.017 * problem.gpus
        left_s = max(0.0, ms - after_ms) / 1000
        return jellyfish.solve(problem, seed, _until(time.thread_time, left_s))

    return solve


def _until(clock: Callable[[], float], seconds: float) -> Callable[[], bool]:
    end = clock() + seconds
    return lambda: clock() < end


def _limited(ms: float, floor: Goal, moonshot: Goal) -> Line:
    return Line(f"jellyfish {ms:g} ms", within(ms), floor, moonshot)


def row(size: str, line: Line, of: str, on: list[Case]) -> str:
    """Return a line of the table."""
    spent, ratio, effectiveness = [], [], []
    for seed, case in enumerate(on):
        fresh = Problem(**{name: getattr(case.problem, name) for name in FIELDS})
        start = time.thread_time()
        plan = line.run(fresh, seed)
        spent.append((time.thread_time() - start) * 1000)
        check(fresh, plan)
        ratio.append(plan.accuracy / case.bound)
        effectiveness.append(plan.effectiveness / case.effectiveness)
    best = fmean(r > 1 - 1e-6 for r in ratio)
    p50, p99 = np.quantile(spent, [0.5, 0.99])

    def reached(goal: Goal) -> bool:
        return bool(p99 <= goal.ms and fmean(ratio) >= goal.mean and min(ratio) >= goal.least)

    verdict = "moonshot" if reached(line.moonshot) else "floor" if reached(line.floor) else "no"
    return (
        f"| {size} | {line.name} | {p50:.2f} | {p99:.2f} | {of} | {fmean(ratio):.5f} "
        f"| {min(ratio):.5f} | {best:.0%} | {min(effectiveness):.3f} "
        f"| {line.floor} | {line.moonshot} | {verdict} |"
    )


OPTIMAL = 1 - 1e-6
SMALL = {
    2: [
        _limited(1.0, Goal(mean=OPTIMAL, least=OPTIMAL), Goal(mean=OPTIMAL, least=OPTIMAL)),
        _limited(10.0, Goal(mean=OPTIMAL, least=OPTIMAL), Goal(mean=OPTIMAL, least=OPTIMAL)),
    ],
    4: [
        _limited(1.0, Goal(mean=0.999), Goal(mean=0.999)),
        _limited(10.0, Goal(mean=0.999), Goal(mean=OPTIMAL, least=OPTIMAL)),
    ],
}
LARGE = {
    16: [
        _limited(1.0, Goal(3.0, 0.9985), Goal(1.0, 0.999, 0.997)),
        _limited(3.0, Goal(3.0, 0.9985), Goal(3.0, 0.999, 0.997)),
        _limited(10.0, Goal(mean=0.9985), Goal(10.0, 0.999, 0.997)),
    ],
    64: [
        _limited(3.0, Goal(10.0, 0.9975), Goal(3.0, 0.998)),
        _limited(10.0, Goal(10.0, 0.9975), Goal(10.0, 0.998)),
    ],
    256: [
        _limited(10.0, Goal(30.0, 0.998), Goal(10.0, 0.9985)),
        _limited(30.0, Goal(30.0, 0.998), Goal(30.0, 0.9985)),
    ],
}
PAPER = Line("paper", paper.solve, Goal(PUBLISHED_MS / 100), Goal(PUBLISHED_MS / 1000))


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the table's lines, those of small problems first."""
    few = options.quick
    for gpus, some in SMALL.items():
        for per_gpu in (8,) if few else (4, 6, 8, 10):
            on = list(cases(gpus, gpus * per_gpu, options.seed, options.instances, True))
            for line in some:
                yield row(f"{gpus} x {gpus * per_gpu}", line, "optimum", on)
    for gpus, some in LARGE.items():
        on = list(cases(gpus, 10 * gpus, options.seed, options.instances, gpus == 16))
        of = "optimum" if gpus == 16 else "bound"
        for line in some[:1] if few else some:
            yield row(f"{gpus} x {10 * gpus}", line, of, on)
        if gpus == 16:
            yield row("16 x 160", PAPER, of, on[:1] if few else on[:10])


def against_published(every: int) -> str:
    """Return how `paper` compares with the published SA+DP, measured, on `every`-th problem."""
    ours, theirs, spent = [], [], []
    with gzip.open(REFERENCE, "rt") as file:
        for seed, case in enumerate(map(json.loads, list(file)[::every])):
            problem = problem_from_json(case["problem"])
            start = time.thread_time()
            plan = paper.solve(problem, seed)
            if problem.gpus == 16:
                spent.append((time.thread_time() - start) * 1000)
            ours.append(check(problem, plan).accuracy)
            theirs.append(case["published_sa"]["accuracy"])
    difference = fmean(ours) - fmean(theirs)
    return (
        f"paper on {len(ours)} reference problems: mean accuracy {fmean(ours):.4f}, published "
        f"{fmean(theirs):.4f} (difference {difference:+.4f}, floor within 0.003); at 16 x 160 "
        f"{np.median(spent):.1f} ms, {PUBLISHED_MS / np.median(spent):.0f} times faster than the "
        f"published {PUBLISHED_MS / 1000:.1f} s (floor 100, moonshot 1000)"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=30)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--quick", action="store_true", help="few instances: in some two minutes")
    options = parser.parse_args()
    if options.quick:
        options.instances = min(options.instances, 3)
    jellyfish.warm()
    paper.warm()
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    for text in lines(options):
        print(text, flush=True)
    print()
    print(against_published(10 if options.quick else 1))


if __name__ == "__main__":
    main()
