"""The instances that the scheduler is judged on."""

from __future__ import annotations

import numpy as np
import pytest

from experiment.planning import PROFILE, instance


def test_instances_are_those_of_their_seed() -> None:
    one, again, other = (instance(4, 24, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.bandwidth_kbps, again.bandwidth_kbps)
    assert one.initial_dnns == again.initial_dnns
    assert not np.array_equal(one.bandwidth_kbps, other.bandwidth_kbps)


def test_instances_are_drawn_as_published() -> None:
    problem = instance(16, 160, 5)
    assert (problem.gpus, problem.clients) == (16, 160)
    assert set(problem.fps) == {10, 15, 25}
    assert set(problem.slo_ms) == {75, 100, 150}
    assert 7_500 <= problem.bandwidth_kbps.min() < problem.bandwidth_kbps.max() <= 50_000


def test_the_profile_is_the_synthetic_one() -> None:
    assert PROFILE.latency_ms[-1, 0] == pytest.approx(35)
    assert PROFILE.accuracy[[0, -1]] == pytest.approx([0.33, 0.66])
    assert PROFILE.max_batch == 8
