from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jellyfish.profile import Profile
from jellyfish.scheduling import optimum, paper
from jellyfish.scheduling.packing import TooMany, carried, fits, pack, patterns
from jellyfish.scheduling.placing import place
from jellyfish.scheduling.problem import GpuPlan, Problem, check
from tests.unit.brute_force import best_worth
from tests.unit.scheduling_cases import problem, problems, reference_cases

ample = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
RATES = (7.0, 10.0, 15.0, 24.0, 29.97, 60.0, 0.07)


def drawn(seed: int, clients: int, gpus: int, rates: tuple[float, ...] | None = None) -> Problem:
    """Return a problem in which most clients can be served, all with SLOs of their own."""
    rng = random.Random(seed)
    dnns = 5
    profile = Profile(
        input_px=[100 * (m + 1) for m in range(dnns)],
        frame_bytes=[1_000.0 * (m + 1) ** 2 for m in range(dnns)],
        accuracy=sorted(rng.uniform(0.3, 0.7) for _ in range(dnns)),
        latency_ms=[[6 + 2 * m + (2 + 3 * m) * b for b in range(1, 7)] for m in range(dnns)],
    )
    return Problem(
        gpus=gpus,
        profile=profile,
        fps=[rng.choice(rates) if rates else rng.uniform(3, 40) for _ in range(clients)],
        slo_ms=[rng.uniform(60, 200) for _ in range(clients)],
        bandwidth_kbps=[rng.uniform(5_000, 50_000) for _ in range(clients)],
        wire_ms=[rng.uniform(0, 4) for _ in range(clients)],
    )


def assert_optimal(asked: Problem) -> None:
    found = optimum.prove(asked)
    assert check(asked, found.plan) == found.plan
    assert found.proven
    effectiveness, accuracy = best_worth(asked)
    assert found.plan.effectiveness == pytest.approx(effectiveness)
    assert found.plan.accuracy == pytest.approx(accuracy, abs=1e-6)
    assert found.effectiveness_bound == pytest.approx(effectiveness)
    assert found.accuracy_bound == pytest.approx(accuracy, abs=1e-6)


@ample
@given(problems(max_clients=7) | problems(max_clients=7, sane=True))
def test_it_equals_brute_force(asked: Problem) -> None:
    assert_optimal(asked)


def test_a_client_that_hardly_sends_gets_the_best_dnn() -> None:
    """Found by the test above: HiGHS drops coefficients that are next to nothing."""
    profile = Profile(
        input_px=[100, 200], frame_bytes=[500, 500], accuracy=[0.5, 1.0], latency_ms=[[1], [1]]
    )
    assert_optimal(
        Problem(gpus=1, profile=profile, fps=[1e-300], slo_ms=[40], bandwidth_kbps=[1000])
    )


@pytest.mark.parametrize("seed", range(12))
def test_it_equals_brute_force_on_odd_rates_and_slos_of_their_own(seed: int) -> None:
    assert_optimal(drawn(seed, clients=8, gpus=1 + seed % 3, rates=RATES if seed % 2 else None))


@pytest.mark.parametrize("seed", range(6))
def test_types_described_gpu_by_gpu_give_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimum, "PATTERN_STEPS", 3)
    assert_optimal(drawn(seed, clients=8, gpus=2))


def test_what_adds_up_but_does_not_pack_is_refined() -> None:
    # 3 x 20 frames/s into two GPUs of less than 40: sums allow what no GPU can hold.
    profile = Profile(input_px=[1], frame_bytes=[100], accuracy=[0.5], latency_ms=[[1000 / 39]])
    asked = problem(*[(20.0, 200.0, 1e5)] * 3, profile=profile, gpus=2)
    assert optimum.prove(asked).plan.effectiveness == pytest.approx(2 / 3)
    assert_optimal(asked)


@pytest.mark.parametrize(
    ("clients", "gpus", "effectiveness"), [(0, 2, 1.0), (3, 0, 0.0), (1, 1, 1.0), (2, 9, 1.0)]
)
def test_the_edges(clients: int, gpus: int, effectiveness: float) -> None:
    asked = problem(*[(10.0, 150.0, 1e5)] * clients, gpus=gpus)
    assert optimum.prove(asked).plan.effectiveness == effectiveness
    assert_optimal(asked)


def test_it_is_never_worse_than_the_published_scheduler() -> None:
    better = 0
    for case in list(reference_cases())[::12]:
        if case["problem"].gpus > 4:
            continue
        found = optimum.prove(case["problem"])
        published = case["published_sa"]
        assert found.proven
        ours = found.plan.effectiveness, found.plan.accuracy + 1e-7
        assert ours >= (published["effectiveness"], published["accuracy"])
        better += found.plan.accuracy > published["accuracy"] + 1e-6
    assert better


def test_cut_short_it_gives_a_feasible_plan_and_a_bound() -> None:
    asked = drawn(3, clients=30, gpus=4, rates=RATES)
    best = optimum.prove(asked).plan
    for budget in (lambda: False, 0):
        found = optimum.prove(asked, budget)
        assert check(asked, found.plan) == found.plan
        assert found.effectiveness_bound >= best.effectiveness - 1e-9
        if found.plan.effectiveness >= best.effectiveness:
            assert found.accuracy_bound >= best.accuracy - 1e-7
    assert optimum.solve(asked, 0, 0) == optimum.solve(asked, 1, 0)


def test_gpus_keep_the_dnns_they_hold() -> None:
    asked = problem((20.0, 100.0, 1e5), (20.0, 100.0, 3_500.0), gpus=3, initial_dnns=[1, 0, 2])
    found = optimum.solve(asked)
    assert found.dnns == (1, None, 2)
    assert found.clients == (2, 0)


def test_batches_grow_only_where_deadlines_allow() -> None:
    asked = problem((10.0, 100.0, 1e5), (10.0, 31.0, 1e5), gpus=2)
    groups = [(0, [0]), (0, [1])]
    assert place(asked, groups).gpus == (GpuPlan(0, 3), GpuPlan(0, 1))
    assert place(asked, groups, grow_batches=False).gpus == (GpuPlan(0, 1), GpuPlan(0, 1))


@ample
@given(
    st.lists(st.integers(1, 6_000).map(lambda n: n / 100), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_fillings_are_all_the_maximal_ones(rates: list[float], data: st.DataObject) -> None:
    counts = tuple(data.draw(st.integers(0, 3)) for _ in rates)
    throughput = data.draw(st.floats(1, 200) | st.integers(1, 200).map(float))
    every = [c for c in np.ndindex(*(n + 1 for n in counts)) if fits(rates, c, throughput)]
    maximal = {
        c
        for c in every
        if not any(np.greater_equal(other, c).all() and other != c for other in every)
    }
    assert set(patterns(rates, counts, throughput, 10_000)) == (maximal if every else set())
    most = carried(rates, counts, throughput)
    assert all(np.dot(rates, c) <= most + 1e-9 for c in every)


def test_packing_gives_up_when_told() -> None:
    rates: Any = [3.0, 5.0, 7.0, 11.0]
    assert pack(rates, (0, 2, 1, 0), 10.5, 2, 100) == [(0, 0, 1, 0), (0, 2, 0, 0)]
    assert pack(rates, (0, 2, 1, 0), 9.0, 2, 100) is None
    with pytest.raises(TooMany):
        pack(rates, (9, 9, 9, 9), 13.0, 30, 5)


def test_the_published_solver_is_bounded_on_drawn_problems() -> None:
    for seed in range(4):
        asked = drawn(seed, clients=14, gpus=2, rates=RATES)
        bound = optimum.prove(asked).plan
        found = paper.solve(asked, seed)
        assert (found.effectiveness, found.accuracy) <= (bound.effectiveness, bound.accuracy + 1e-9)
