"""The schedulers' numbers: `python -m benchmarks.scheduler [--instances N] [--seed S]`.

Quality against the proven optimum or the bound, and CPU time, on instances like those of the
published simulations with the synthetic profile: frame rates of 10, 15 and 25, SLOs of 75, 100 and
150 ms, bandwidth uniform in 7.5 to 50 Mbit/s, a random DNN on each GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from experiment.planning import instance
from jellyfish.scheduling import jellyfish, optimum, paper
from jellyfish.scheduling.problem import Plan, Problem, check

PROOF_S = 60.0  # after which a bound must do
HEADER = "| size | solver | ms p50 | ms p99 | of | mean | min | best | effectiveness |"


@dataclass(frozen=True)
class Case:
    """A problem, and the accuracy that no plan exceeds."""

    problem: Problem
    bound: float
    effectiveness: float


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


def within(ms: float) -> Callable[[Problem, int], Plan]:
    """Return the `jellyfish` solver with a limit on its CPU time."""

    def solve(problem: Problem, seed: int) -> Plan:
        return jellyfish.solve(problem, seed, _until(time.thread_time, ms / 1000))

    return solve


def _until(clock: Callable[[], float], seconds: float) -> Callable[[], bool]:
    end = clock() + seconds
    return lambda: clock() < end


def row(size: str, name: str, of: str, run: Callable[[Problem, int], Plan], on: list[Case]) -> str:
    """Return a line of the table."""
    spent, ratio, effectiveness = [], [], []
    for seed, case in enumerate(on):
        # A copy knows nothing worked out before: budgets are part of the price.
        fresh = Problem(**{name: getattr(case.problem, name) for name in FIELDS})
        start = time.thread_time()
        plan = run(fresh, seed)
        spent.append((time.thread_time() - start) * 1000)
        check(fresh, plan)
        ratio.append(plan.accuracy / case.bound)
        effectiveness.append(plan.effectiveness / case.effectiveness)
    best = fmean(r > 1 - 1e-6 for r in ratio)
    p50, p99 = np.quantile(spent, [0.5, 0.99])
    return (
        f"| {size} | {name} | {p50:.2f} | {p99:.2f} | {of} | {fmean(ratio):.5f} "
        f"| {min(ratio):.5f} | {best:.0%} | {min(effectiveness):.3f} |"
    )


FIELDS = ("gpus", "profile", "fps", "slo_ms", "bandwidth_kbps", "initial_dnns")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    jellyfish.warm()
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    for gpus in (2, 4):
        for per_gpu in (4, 6, 8, 10):
            on = list(cases(gpus, gpus * per_gpu, options.seed, options.instances, True))
            for ms in (1.0, 10.0):
                size = f"{gpus} x {gpus * per_gpu}"
                print(row(size, f"jellyfish {ms:g} ms", "optimum", within(ms * 0.85), on))
    on = list(cases(16, 160, options.seed, options.instances, True))
    for ms in (1.0, 3.0, 10.0, 100.0):
        print(row("16 x 160", f"jellyfish {ms:g} ms", "optimum", within(ms - 0.4), on))
    print(row("16 x 160", "paper", "optimum", paper.solve, on[:5]))
    for gpus, limits in ((64, (3.0, 10.0)), (256, (10.0, 30.0))):
        on = list(cases(gpus, 10 * gpus, options.seed, options.instances, False))
        for ms in limits:
            size = f"{gpus} x {10 * gpus}"
            print(row(size, f"jellyfish {ms:g} ms", "bound", within(ms * 0.8), on))


if __name__ == "__main__":
    main()
