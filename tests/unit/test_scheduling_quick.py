"""The plan at once: feasible whatever it is asked, and nobody who is served loses a GPU."""

import time
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.scheduling import jellyfish, quick
from jellyfish.scheduling.problem import Problem, check
from tests.unit.scheduling_cases import problem, reference_cases

CASES = list(reference_cases())


def with_mapping(asked: Problem, mapping: list[int | None], dnns: list[int]) -> Problem:
    return Problem(
        gpus=asked.gpus,
        profile=asked.profile,
        fps=asked.fps,
        slo_ms=asked.slo_ms,
        bandwidth_kbps=asked.bandwidth_kbps,
        overhead_ms=asked.overhead_ms,
        initial_dnns=dnns,
        initial_gpus=mapping,
    )


@pytest.mark.parametrize("number", range(0, 200, 7))
def test_plans_are_feasible_and_whoever_is_served_stays(number: int) -> None:
    asked = CASES[number]["problem"]
    plan = jellyfish.solve(asked, 1)
    rng = Random(number)
    lost = rng.randrange(asked.gpus)
    mapping = [None if g == lost else g for g in plan.clients]
    dnns = [gpu.dnn if gpu else 0 for gpu in plan.gpus]
    now = with_mapping(asked, mapping, dnns)
    found = check(now, quick.solve(now))
    stayed = [(a, b) for a, b in zip(mapping, found.clients, strict=True) if a is not None]
    assert all(a == b for a, b in stayed)
    served = sum(g is not None for g in found.clients)
    assert served > len(stayed) or len(stayed) == sum(asked.servable)


def test_the_first_client_gets_the_best_dnn_that_serves_it() -> None:
    asked = problem((15.0, 150.0, 50_000.0), gpus=2)
    plan = check(asked, quick.solve(asked))
    assert plan.clients[0] is not None
    assert plan.accuracy == check(asked, jellyfish.solve(asked, 1)).accuracy


def test_a_full_gpu_goes_down_for_one_client_more() -> None:
    alone = problem((20.0, 100.0, 100_000.0))
    high = check(alone, jellyfish.solve(alone, 1))
    (gpu,) = high.gpus
    assert gpu is not None
    assert gpu.dnn > 0
    crowd = problem(*[(20.0, 100.0, 100_000.0)] * 3)
    now = with_mapping(crowd, [0, None, None], [gpu.dnn])
    plan = check(now, quick.solve(now))
    assert plan.clients == (0, 0, 0)
    assert plan.gpus[0] is not None
    assert plan.gpus[0].dnn < gpu.dnn


def test_who_cannot_be_served_keeps_nobody_else_out() -> None:
    asked = problem((15.0, 150.0, 50_000.0), (15.0, 1.0, 50_000.0), (float("nan"), 100.0, 1.0))
    plan = check(asked, quick.solve(asked))
    assert plan.clients == (0, None, None)
    nothing = problem((15.0, 150.0, 50_000.0), gpus=0)
    assert quick.solve(nothing).clients == (None,)


client = st.tuples(st.floats(0.1, 60), st.floats(5, 400), st.floats(100, 1e5))


@given(st.lists(client, max_size=12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_any_state_gives_a_feasible_plan(
    clients: list[tuple[float, float, float]], gpus: int, rng: Random
) -> None:
    """Even where the network changed, so that the mapping of now breaks the rules."""
    asked = problem(*clients, gpus=gpus)
    mapping = [rng.choice([None, *range(gpus)]) for _ in clients]
    dnns = [rng.randrange(asked.profile.dnns) for _ in range(gpus)]
    now = with_mapping(asked, mapping, dnns)
    check(now, quick.solve(now))


def test_a_gpus_clients_are_placed_in_less_time_than_the_scheduler_takes() -> None:
    """As a ratio in one run: the machine may be slow."""
    case = max((c["problem"] for c in CASES), key=lambda p: p.clients)
    plan = jellyfish.solve(case, 1)
    mapping = [None if g == 0 else g for g in plan.clients]
    now = with_mapping(case, mapping, [gpu.dnn if gpu else 0 for gpu in plan.gpus])

    def cpu_s(work: object) -> float:
        times = []
        for _ in range(5):
            start_s = time.process_time()
            work()  # type: ignore[operator]
            times.append(time.process_time() - start_s)
        return float(np.median(times))

    quick_s = cpu_s(lambda: quick.solve(now))
    print(f"quick plan for {case.clients} clients: {quick_s * 1000:.2f} ms")
    assert quick_s < cpu_s(lambda: jellyfish.solve(now, 1))
