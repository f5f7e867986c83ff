from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jellyfish.profile import Profile
from jellyfish.scheduling import jellyfish, optimum, paper
from jellyfish.scheduling.problem import Problem, check
from tests.unit.brute_force import best_worth
from tests.unit.scheduling_cases import PROFILE, problem, problems, reference_cases
from tests.unit.test_scheduling_optimum import RATES, drawn

ample = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("input_px", "frame_bytes", "accuracy")
SLOW_MS = 2.5 * PROFILE.latency_ms
any_problem = problems() | problems(sane=True)


def worth(asked: Problem, seed: int, budget: int) -> tuple[float, float]:
    found = jellyfish.solve(asked, seed, budget)
    assert check(asked, found) == found
    return found.effectiveness, found.accuracy


@ample
@given(any_problem, st.integers(0, 2**32), st.integers(0, 200))
def test_every_plan_is_feasible_and_none_beats_brute_force(
    asked: Problem, seed: int, budget: int
) -> None:
    effectiveness, accuracy = worth(asked, seed, budget)
    best = best_worth(asked)
    assert effectiveness <= best[0] + 1e-9
    if effectiveness == pytest.approx(best[0]):
        assert accuracy <= best[1] + 1e-9


@ample
@given(problems(max_clients=7, sane=True), st.integers(0, 2**32))
def test_it_serves_as_many_clients_as_any_plan(asked: Problem, seed: int) -> None:
    assert worth(asked, seed, 1_000)[0] == pytest.approx(best_worth(asked)[0])


@pytest.mark.parametrize("seed", range(10))
def test_two_gpus_are_planned_optimally_whatever_the_rates(seed: int) -> None:
    asked = drawn(seed, clients=8, gpus=2, rates=RATES if seed % 2 else None)
    best = best_worth(asked)
    if best[0] == 1.0:
        assert worth(asked, seed, 200) == pytest.approx(best)


@ample
@given(problems(max_clients=6, sane=True), st.integers(0, 2**32))
def test_one_gpu_is_planned_optimally(asked: Problem, seed: int) -> None:
    best = best_worth(asked)
    if asked.gpus == 1 and best[0] == 1.0:
        assert worth(asked, seed, 200) == pytest.approx(best)


def test_one_client_has_a_gpu_s_best_dnn() -> None:
    assert worth(problem((20, 100, 100_000), gpus=2), 1, 400) == (1.0, 0.6)


def test_it_comes_close_to_the_optimum() -> None:
    for gpus, count, least in ((2, 6, 1.0), (4, 3, 0.998)):
        cases = [c for c in reference_cases() if c["problem"].gpus == gpus][:count]
        ratios = []
        for seed, case in enumerate(cases):
            best = optimum.solve(case["problem"])
            effectiveness, accuracy = worth(case["problem"], seed, 400)
            assert effectiveness >= best.effectiveness
            ratios.append(accuracy / best.accuracy)
        assert fmean(ratios) >= least - 1e-9


def test_it_is_better_than_the_published_scheduler_at_scale() -> None:
    gains = []
    for seed, case in enumerate(reference_cases()):
        if case["problem"].gpus == 16:
            effectiveness, accuracy = worth(case["problem"], seed, 400)
            assert effectiveness == 1.0
            gains.append(accuracy / case["published_sa"]["accuracy"])
    assert min(gains) > 1.0
    assert fmean(gains) > 1.01


@ample
@given(any_problem, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_plan(asked: Problem, seed: int) -> None:
    assert jellyfish.solve(asked, seed, 50) == jellyfish.solve(asked, seed, 50)


@pytest.mark.parametrize("seed", range(4))
def test_more_steps_never_give_a_worse_plan(seed: int) -> None:
    asked = drawn(seed, clients=60, gpus=6, rates=RATES if seed % 2 else None)
    found = [worth(asked, seed, budget) for budget in (0, 1, 7, 20, 60, 200, 600)]
    rounded = [(effectiveness, round(accuracy, 9)) for effectiveness, accuracy in found]
    assert rounded == sorted(rounded)
    assert rounded[-1] > rounded[0]


def countdown(looks: int) -> Callable[[], bool]:
    left = iter(range(looks))
    return lambda: next(left, None) is not None


def test_a_call_says_when_to_stop() -> None:
    asked = drawn(1, clients=60, gpus=6)
    at_once = jellyfish.solve(asked, 1, countdown(0))
    assert at_once == jellyfish.solve(asked, 1, 0)
    later = jellyfish.solve(asked, 1, countdown(10))
    assert (later.effectiveness, later.accuracy) > (at_once.effectiveness, at_once.accuracy)


@ample
@given(problems(max_clients=6, sane=True), st.integers(0, 9))
def test_a_client_that_no_plan_serves_changes_nothing(asked: Problem, seed: int) -> None:
    names = ("fps", "slo_ms", "bandwidth_kbps", "wire_ms", "device_ms", "response_bytes")
    hopeless = {"fps": 7.77, "slo_ms": 0.5, "bandwidth_kbps": 1e4}
    columns: dict[str, Any] = {
        name: np.append(getattr(asked, name), hopeless.get(name, 0.0)) for name in names
    }
    beside = Problem(
        gpus=asked.gpus,
        profile=asked.profile,
        overhead_ms=asked.overhead_ms,
        initial_dnns=asked.initial_dnns,
        **columns,
    )
    alone, with_it = jellyfish.solve(asked, seed, 50), jellyfish.solve(beside, seed, 50)
    assert with_it.gpus == alone.gpus
    assert with_it.clients == (*alone.clients, None)
    assert (with_it.effectiveness, with_it.accuracy) == (alone.effectiveness, alone.accuracy)


def test_the_bound_holds() -> None:
    for seed in range(6):
        asked = drawn(seed, clients=20, gpus=3, rates=RATES)
        best = optimum.solve(asked)
        if best.effectiveness == 1.0:
            assert jellyfish.accuracy_bound(asked) >= best.accuracy - 1e-9
    assert jellyfish.accuracy_bound(problem()) == 0.0


def test_gpus_keep_the_dnns_they_hold() -> None:
    asked = problem((20.0, 100.0, 1e5), (20.0, 100.0, 3_500.0), gpus=3, initial_dnns=[1, 0, 2])
    assert jellyfish.solve(asked, 0).dnns == (1, None, 2)


@pytest.mark.parametrize("gpus", [1, 2, 5])
def test_crowds_of_slow_clients_are_served(gpus: int) -> None:
    asked = problem(*[(0.5, 150.0, 1e5)] * 150, gpus=gpus)
    found = jellyfish.solve(asked, 0, 100)
    assert check(asked, found) == found
    assert found.effectiveness == 1.0


@pytest.mark.parametrize("seed", range(12))
def test_under_overload_no_plan_serves_more(seed: int) -> None:
    clients, gpus = ((60, 2), (24, 1), (80, 3))[seed % 3]
    asked = drawn(seed, clients=clients, gpus=gpus, rates=RATES if seed % 2 else None)
    best = optimum.prove(asked, 300)
    assert best.plan.effectiveness < 1
    effectiveness, accuracy = worth(asked, seed, 2_000)
    assert effectiveness >= best.plan.effectiveness - 1e-9
    if effectiveness <= best.plan.effectiveness + 1e-9:
        assert accuracy >= 0.97 * best.plan.accuracy


@pytest.mark.parametrize("seed", range(3))
def test_more_steps_never_give_a_worse_plan_under_overload(seed: int) -> None:
    asked = drawn(seed, clients=80, gpus=3, rates=RATES if seed % 2 else None)
    found = [worth(asked, seed, budget) for budget in (0, 1, 7, 20, 60, 200, 600, 2_000)]
    rounded = [(effectiveness, round(accuracy, 9)) for effectiveness, accuracy in found]
    assert rounded == sorted(rounded)
    assert rounded[-1][0] < 1
    assert jellyfish.solve(asked, seed, 300) == jellyfish.solve(asked, seed, 300)


@pytest.mark.parametrize("gpus", [1, 2, 3])
@pytest.mark.parametrize("each", [1, 62, 80])
def test_crowds_that_one_word_of_bits_does_not_hold_are_served(gpus: int, each: int) -> None:
    slow = Profile(**{name: getattr(PROFILE, name) for name in NAMES}, latency_ms=SLOW_MS)
    asked = problem(*[(0.8, 200.0, 1e5)] * (each * gpus), gpus=gpus, profile=slow)
    assert worth(asked, 0, 300)[0] == min(1.0, 62 / each)  # 62 fit one GPU
    assert worth(asked, 0, 300)[1] >= optimum.solve(asked).accuracy - 1e-6


def test_overload_leaves_out_as_few_as_the_published_scheduler() -> None:
    for seed in range(4):
        asked = drawn(seed, clients=60, gpus=2)
        published = paper.solve(asked, seed)
        assert worth(asked, seed, 1_000)[0] >= published.effectiveness
