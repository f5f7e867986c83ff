"""The named policies: all of their choices exist, and the ablation takes one step at a time."""

from dataclasses import fields
from itertools import pairwise

import pytest

from jellyfish.backoff import BACKOFFS
from jellyfish.policy import ABLATION, JELLYFISH, PAPER, POLICIES, Policy, policy
from jellyfish.scheduling.solvers import solver
from jellyfish.scheduling.static import solve
from jellyfish.shares import reckoned_profile, slo_share
from jellyfish.uplink import ESTIMATORS
from tests.engine_world import profile
from tests.unit.scheduling_cases import problem

PUBLISHED = {"aggressive", "server-independent", "fixed-size", "slo-aware", "fixed-frame"}


def differences(a: Policy, b: Policy) -> set[str]:
    return {f.name for f in fields(Policy) if getattr(a, f.name) != getattr(b, f.name)} - {"name"}


def test_the_published_alternatives_are_there() -> None:
    assert {"paper", "jellyfish", "static", "edf", *PUBLISHED} <= set(POLICIES)
    for name in PUBLISHED:
        assert differences(POLICIES[name], PAPER) <= {"backoff", "server_budget"}, name
        assert differences(POLICIES[name], PAPER), name


@pytest.mark.parametrize("name", POLICIES)
def test_every_choice_exists(name: str) -> None:
    chosen = policy(name)
    assert chosen.name == name
    assert chosen.backoff in BACKOFFS
    assert chosen.estimator in ESTIMATORS
    assert chosen.queue_order in {"edf", "fifo"}
    assert callable(solver(chosen.solver))
    assert 0 < slo_share(chosen.server_budget) <= 1


def test_the_ablation_leads_from_paper_to_jellyfish_one_change_at_a_time() -> None:
    steps = [step for _, step in ABLATION]
    assert (steps[0], steps[-1]) == (PAPER, JELLYFISH)
    for before, after in pairwise(steps):
        assert len(differences(before, after)) == 1
    assert len({label for label, _ in ABLATION}) == len(ABLATION)
    assert all(POLICIES[step.name] is step for step in steps)


def test_server_budgets_see_frames_differently() -> None:
    own = profile()
    assert reckoned_profile("per_dnn", own) is own
    fixed = reckoned_profile("fixed_frame", own).frame_bytes
    assert fixed.tolist() == [9_000] * 4  # 256 px: the largest up to 352
    assert reckoned_profile("fixed_share", own).frame_bytes.max() < 100
    assert slo_share("fixed_share") == 0.75


def test_a_static_plan_serves_everybody_on_the_same_dnn() -> None:
    asked = problem((15, 100, 20_000), (15, 1, 20_000), (15, 100, 1), gpus=2)
    plan = solve(asked, 0)
    assert plan.clients == (0, 1, 0)
    assert len({gpu.dnn for gpu in plan.gpus if gpu}) == 1
    assert solve(problem(gpus=2), 0).gpus == (None, None)
