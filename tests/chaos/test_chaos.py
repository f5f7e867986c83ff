"""The simulation of faults, a small part of it: `make chaos` plays thousands of seeds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiment import virtual_time
from tests.chaos.faults import GUEST, KINDS, STATES, Fault, Scenario, draw
from tests.chaos.mutants import every
from tests.chaos.run import judge, play
from tests.chaos.shrink import CORPUS, ddmin, keep, names, read, shrink
from tests.chaos.strikes import STRIKES
from tests.chaos.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(4)  # CI plays a hundred


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_violates_nothing(seed: int) -> None:
    assert judge(draw(seed)).violations == []


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_what_failed_once_holds_now(path: Path) -> None:
    assert judge(read(path)).violations == []


def test_a_scenario_survives_json() -> None:
    scenario = draw(3)
    assert Scenario.from_json(json.loads(json.dumps(scenario.to_json()))) == scenario


def test_every_kind_can_strike_and_be_drawn() -> None:
    assert set(STRIKES) == {*KINDS, GUEST}
    drawn = {fault.kind for seed in range(300) for fault in draw(seed).faults}
    assert drawn == set(KINDS)
    states = {fault.state for seed in range(100) for fault in draw(seed).faults}
    assert states == {"", *STATES}


def test_delta_debugging_finds_the_few_that_matter() -> None:
    tried: list[list[int]] = []

    def fails(items: Any) -> bool:
        tried.append(list(items))
        return {3, 17} <= set(items)

    assert ddmin(range(20), fails) == [3, 17]
    assert len(tried) < 60


def everything(seed: int) -> str:
    """Return all that clients saw in a seed's world, to the last bit."""
    world = play(draw(seed))
    rows = [row for streamed in world.streamed for row in streamed.rows]
    return "\n".join(map(repr, rows))


@pytest.mark.parametrize("seed", [5])
def test_two_runs_of_a_seed_are_the_same_to_the_bit(seed: int) -> None:
    code = f"from tests.chaos.test_chaos import everything; print(everything({seed}))"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": "."},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in (1, 2)
    ]
    assert said[0] == said[1]
    assert said[0].count("FrameRow") > 100


QUIET = Scenario(1, 2, 20.0, draw(5).clients[:2], (), length_s=4.0)


@pytest.mark.parametrize("n", range(1, 40, 3))
def test_a_start_can_be_cancelled_at_any_wait(n: int) -> None:
    """Nothing is left of an engine whose start is cancelled, wherever it was."""

    async def body() -> list[str]:
        world = World(QUIET)
        serving = world._new_server()
        start = asyncio.create_task(virtual_time.cancelled_at(serving.engine.start(), n))
        await asyncio.wait([start])
        await serving.engine.stop(0.5)
        await asyncio.sleep(5)
        left = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return world.problems + [p.slot.name for p in world.host.alive] + left[1:]

    assert virtual_time.run(body(), 1) == []


def test_a_dead_worker_violates_nothing() -> None:
    fault = Fault(2.0, "gpu:0", "worker dies", "", 0.0, -9)
    verdict = judge(QUIET.with_faults([fault]))
    assert verdict.violations == []
    assert verdict.struck[0].hits == 1


def test_a_failing_scenario_is_shrunk_to_what_fails_and_kept(tmp_path: Path) -> None:
    faults = [
        Fault(1.2, "link:0", "link one-way", for_s=0.3, value="down"),
        Fault(1.5, "planner", "planner plans oddly", for_s=1.5, value="a client short"),
        Fault(1.8, "server", "wall clock steps", value=60.0),
        Fault(2.0, "gpu:1", "worker pauses", for_s=0.1),
    ]
    unchecked = next(mutant for mutant in every() if mutant.name == "plans are adopted unchecked")
    with unchecked.applied():
        verdict = judge(QUIET.with_faults(faults))
        assert "plans" in names(verdict.violations)
        smallest = shrink(verdict)
        path = keep(smallest, tmp_path)
    assert smallest.scenario.faults == (faults[1],)
    assert read(path) == smallest.scenario
    assert judge(read(path)).violations == []
