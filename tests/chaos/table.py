"""What many seeds gave: a table by kind of fault, and one of kind by state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isnan

from tests.chaos.faults import KINDS, STATES
from tests.chaos.run import Verdict
from tests.chaos.shrink import names

FEWEST_HITS, PER_SEEDS = 20, 10_000
ENOUGH_SEEDS = 5_000  # to tell


@dataclass
class Table:
    """Counts over seeds; tables of several processes add up."""

    seeds: int = 0
    virtual_s: float = 0.0
    violated: Counter[str] = field(default_factory=Counter)  # seeds by invariant
    failing: list[int] = field(default_factory=list)
    of_kind: Counter[str] = field(default_factory=Counter)  # seeds with a fault that hit
    bad_of_kind: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)  # faults by kind and state
    recovery_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, verdict: Verdict) -> None:
        """Take in one seed."""
        self.seeds += 1
        self.virtual_s += verdict.virtual_s
        hit = [struck for struck in verdict.struck if struck.hits]
        for struck in hit:
            self.hits[struck.fault.kind, struck.state] += 1
        kinds = {struck.fault.kind for struck in hit}
        self.of_kind.update(kinds)
        if verdict.violations:
            self.failing.append(verdict.scenario.seed)
            self.violated.update(names(verdict.violations))
            self.bad_of_kind.update(kinds)
        if hit and not isnan(verdict.recovery_s):
            last = max(hit, key=lambda struck: struck.healed_s)
            self.recovery_s[last.fault.kind].append(verdict.recovery_s)

    def merge(self, other: Table) -> None:
        """Take in what another process counted."""
        self.seeds += other.seeds
        self.virtual_s += other.virtual_s
        self.failing += other.failing
        for mine, theirs in (
            (self.violated, other.violated),
            (self.of_kind, other.of_kind),
            (self.bad_of_kind, other.bad_of_kind),
        ):
            mine.update(theirs)
        self.hits.update(other.hits)
        for kind, values in other.recovery_s.items():
            self.recovery_s[kind] += values

    def thin(self) -> list[tuple[str, str]]:
        """Return the cells of kind and state that were hit too rarely for so many seeds."""
        if self.seeds < ENOUGH_SEEDS:
            return []
        fewest = FEWEST_HITS * self.seeds / PER_SEEDS
        return [
            (kind, state)
            for kind in KINDS
            for state in STATES
            if (kind, state) not in IMPOSSIBLE and self.hits[kind, state] < fewest
        ]

    def lines(self) -> Iterator[str]:
        """Yield the tables."""
        states = " | ".join(STATES)
        yield f"| kind | seeds | violated | recovery p50 / p99 / max, s | hits: {states} |"
        yield "|---|" + "---|" * (3 + len(STATES))
        for kind in KINDS:
            took = sorted(self.recovery_s[kind])
            recovery = " / ".join(f"{_quantile(took, q):.1f}" for q in (0.5, 0.99, 1.0))
            hits = " | ".join(
                "-" if (kind, state) in IMPOSSIBLE else str(self.hits[kind, state])
                for state in STATES
            )
            seeds = f"{self.of_kind[kind]} | {self.bad_of_kind[kind]}"
            yield f"| {kind} | {seeds} | {recovery} | {hits} |"
        yield f"{self.seeds} seeds, {self.virtual_s / 3600:.1f} virtual hours, " + (
            f"{len(self.failing)} seeds with violations: {dict(self.violated)}"
        )


def _quantile(values: list[float], q: float) -> float:
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


IMPOSSIBLE: frozenset[tuple[str, str]] = frozenset()
"""Cells that no fault can hit, with the reason beside each."""
