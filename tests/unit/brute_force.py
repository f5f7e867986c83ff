"""The best plan of a small problem, by trying all."""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum

from jellyfish.scheduling.problem import BATCHES_IN_BUDGET, Problem

Worth = tuple[int, float]  # clients served, and accuracy times frame rate


def best_worth(problem: Problem) -> tuple[float, float]:
    """Return the effectiveness and accuracy that no plan of `problem` exceeds."""
    servable = [i for i in range(problem.clients) if problem.servable[i]]
    if not servable:
        return 1.0, 0.0
    alone = {some: _on_one_gpu(problem, some) for some in _subsets(sum(1 << i for i in servable))}
    best: dict[int, Worth] = dict.fromkeys(alone, (0, 0.0))  # by the clients that may be served
    for _ in range(problem.gpus):
        best = {
            some: max(
                (_add(alone[here], best[some & ~here]) for here in _subsets(some)),
            )
            for some in alone
        }
    count, earned = max(best.values())
    return count / len(servable), earned / problem.total_fps(servable)


def _subsets(some: int) -> Iterator[int]:
    here = some
    while here:
        yield here
        here = (here - 1) & some
    yield 0


def _add(a: Worth, b: Worth) -> Worth:
    return a[0] + b[0], a[1] + b[1]


def _on_one_gpu(problem: Problem, some: int) -> Worth:
    """Return what a GPU earns that serves exactly `some`; less than nothing if none can."""
    members = [i for i in range(problem.clients) if some >> i & 1]
    if not members:
        return 0, 0.0
    profile = problem.profile
    fps = fsum(problem.fps[i] for i in members)
    fitting = [
        profile.accuracy[dnn]
        for dnn in range(profile.dnns)
        for batch in range(profile.max_batch)
        if fps < profile.throughput[dnn, batch]
        and all(
            BATCHES_IN_BUDGET * profile.latency_ms[dnn, batch] <= problem.budget_ms[i, dnn]
            for i in members
        )
    ]
    return (len(members), fps * max(fitting)) if fitting else (-1000, 0.0)
