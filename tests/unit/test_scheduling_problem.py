from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from jellyfish.scheduling.problem import GpuPlan, InfeasiblePlan, Plan, Problem, check
from tests.unit.scheduling_cases import PROFILE, problem, problems

PER_CLIENT = ("fps", "slo_ms", "bandwidth_kbps", "wire_ms", "device_ms", "response_bytes")
FAST = (10.0, 100.0, 100_000.0)  # fps, SLO, bandwidth: 99 ms or more for every DNN


def plan(gpus: list[GpuPlan | None], clients: list[int | None]) -> Plan:
    return Plan(tuple(gpus), tuple(clients), 0.0, 0.0)


def test_effectiveness_counts_clients_and_accuracy_frames() -> None:
    asked = problem(FAST, (30.0, 100.0, 100_000.0), gpus=2)
    checked = check(asked, plan([GpuPlan(1, 1), None], [0, None]))
    assert checked.effectiveness == 0.5
    assert checked.accuracy == pytest.approx(0.5 * 10 / 40)
    assert checked.dnns == (1, None)


def test_clients_that_nothing_can_serve_do_not_count() -> None:
    too_tight, too_fast = (10.0, 15.0, 100_000.0), (500.0, 100.0, 100_000.0)
    asked = problem(FAST, too_tight, too_fast)
    assert asked.servable.tolist() == [True, False, False]
    checked = check(asked, plan([GpuPlan(2, 1)], [0, None, None]))
    assert (checked.effectiveness, checked.accuracy) == (1.0, 0.6)


def test_with_no_servable_client_none_is_left_out() -> None:
    checked = check(problem(), plan([GpuPlan(0, 1)], []))
    assert (checked.effectiveness, checked.accuracy) == (1.0, 0.0)


def test_largest_batch_is_the_last_that_fits_twice() -> None:
    asked = problem((10.0, 32.08, 100_000.0), profile=PROFILE)  # 0.08 ms on the network
    assert asked.largest_batch.tolist() == [[2, 0, 0]]


@pytest.mark.parametrize(
    ("gpus", "clients", "rule"),
    [
        ([GpuPlan(0, 1)], [0], "1 GPUs and 1 clients; the problem has 1 and 2"),
        ([GpuPlan(3, 1)], [0, 0], "GPU 0: DNN 3"),
        ([GpuPlan(0, 4)], [0, 0], "GPU 0: batch 4"),
        ([GpuPlan(0, 1)], [None, 1], "client 1: GPU 1; there are 1"),
        ([None], [None, 0], "client 1: GPU 0 runs nothing"),
        ([GpuPlan(2, 2)], [0, None], "client 0: budget"),
        ([GpuPlan(2, 1)], [0, 0], "GPU 0: 25 frames/s mapped, throughput 25"),
    ],
)
def test_the_first_broken_rule_is_named(
    gpus: list[GpuPlan | None], clients: list[int | None], rule: str
) -> None:
    asked = problem(FAST, (15.0, 100.0, 100_000.0))
    with pytest.raises(InfeasiblePlan) as raised:
        check(asked, plan(gpus, clients))
    assert rule in str(raised.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"slo_ms": [1.0]}, "slo_ms has shape"),
        ({"initial_dnns": [0, 0]}, "2 DNNs for 1 GPUs"),
        ({"initial_dnns": [3]}, "names DNN 3"),
        ({"gpus": -1}, "-1 GPUs"),
    ],
)
def test_a_problem_that_does_not_fit_together_is_refused(change: dict[str, Any], text: str) -> None:
    fits: dict[str, Any] = {"gpus": 1, "profile": PROFILE, "bandwidth_kbps": [9e4, 9e4]}
    with pytest.raises(ValueError, match=text):
        Problem(**(fits | {"fps": [10, 10], "slo_ms": [100, 100]} | change))


def test_a_problem_survives_the_pipe() -> None:
    asked = problem(FAST, initial_dnns=(2,))
    there = pickle.loads(pickle.dumps(asked))
    assert there.initial_dnns == (2,)
    assert np.array_equal(there.budget_ms, asked.budget_ms)


def feasible(asked: Problem, offer: Plan) -> bool:
    try:
        check(asked, offer)
    except InfeasiblePlan:
        return False
    return True


@settings(deadline=None)
@given(problems(max_clients=3) | problems(max_clients=3, sane=True))
def test_servable_is_what_a_gpu_to_itself_can_serve(asked: Problem) -> None:
    profile = asked.profile
    for client, servable in enumerate(asked.servable):
        alone = Problem(
            gpus=1,
            profile=profile,
            overhead_ms=asked.overhead_ms,
            **{key: getattr(asked, key)[client] for key in PER_CLIENT},
        )
        offers = product(range(profile.dnns), range(1, profile.max_batch + 1))
        assert servable == any(feasible(alone, plan([GpuPlan(*offer)], [0])) for offer in offers)
