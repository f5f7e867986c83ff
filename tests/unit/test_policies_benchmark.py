"""The comparison of policies on held-out seeds: its seeds, its sums and its intervals."""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import pytest

from benchmarks.policies import FROM_TICK, config_of, f1, interval, jobs_of, misses_ratio, report
from experiment.paths import ROOT

HELD_OUT = ROOT / "config/heldout.yaml"


def test_seeds_are_held_out_and_shared_by_the_policies() -> None:
    options = argparse.Namespace(config=HELD_OUT, seeds=5, every=1, policies=None)
    jobs = list(jobs_of(options))
    assert Counter(name for *_, name in jobs) == dict.fromkeys(["paper", "jellyfish"], 5 * 72 * 3)
    drawn: dict[str, set[int]] = {"paper": set(), "jellyfish": set()}
    for _, _, _, _, run, name in jobs:
        drawn[name].add(run.seed)
    assert drawn["paper"] == drawn["jellyfish"]
    assert len(drawn["paper"]) == 5 * 72 * 3
    tuned_on = {config_of(ROOT / "config" / name)["seed"] for name in ("paper.yaml", "config.yaml")}
    assert not tuned_on & {seed for _, _, seed, *_ in jobs}
    traces = {seed: config["traces"]["lte"]["seed"] for _, _, seed, config, *_ in jobs}
    assert all(seed == of_trace for seed, of_trace in traces.items())


def test_a_part_takes_other_cells_with_each_seed() -> None:
    options = argparse.Namespace(config=HELD_OUT, seeds=3, every=3, policies=["paper"])
    assert len({(cell, run.clip) for _, cell, _, _, run, _ in jobs_of(options)}) == 72 * 3


def tallies(*misses: int) -> np.ndarray:
    return np.array([[1000, m, m, 900, 50, m] for m in misses], float)


def test_intervals_are_over_seeds() -> None:
    ours, theirs = tallies(1, 2, 3), tallies(10, 10, 10)
    middle, low, high = interval(ours, theirs, misses_ratio(FROM_TICK))
    assert middle == pytest.approx(0.2)
    assert 0.1 <= low < 0.2 < high <= 0.3
    assert interval(tallies(0, 0), tallies(0, 0), misses_ratio(FROM_TICK)) == (0, 0, 0)
    assert f1(ours)[0] == pytest.approx(1800 / 1851)


def test_the_report_names_the_cells_that_are_worse() -> None:
    by = {
        ("lte", "a", 1, "paper"): tallies(10)[0],
        ("lte", "a", 1, "jellyfish"): tallies(20)[0],
        ("lte", "b", 1, "paper"): tallies(10)[0],
        ("lte", "b", 1, "jellyfish"): tallies(1)[0],
    }
    text = report(by)
    assert "| lte | paper | 1.0000 | 1.0000 |" in text
    assert "of 2 cells, more misses in 1 ['a']" in text
    assert "of 2 cells, less F1 in 1 ['a']" in text
