"""The comparison of real and simulated faults: what differs is found, what is alike is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.faults import KINDS, Fault, Scenario
from tests.soak import compare
from tests.soak.moody import MOODS, Moods
from tests.soak.twin import RealHost

FPS = 20.0


def world(bad: tuple[float, float], healed_s: float, **more: Any) -> dict[str, Any]:
    """Return what came of a fault at 10 s; frames captured within `bad` are lost."""
    frames = [(k / FPS, not bad[0] <= k / FPS < bad[1]) for k in range(600)]
    one = {"kind": "worker dies", "target": "gpu:0", "state": "running", "hits": 1}
    struck = [{**one, "struck_s": 10.0, "healed_s": healed_s}]
    return {"frames": frames, "struck": struck, **more}


def result(real: tuple[float, float], simulated: tuple[float, float]) -> dict[str, Any]:
    fresh = [(k / FPS, True) for k in range(600)]
    return {
        "scenario": Scenario(1, 1, 10.0, (), (Fault(10.0, "gpu:0", "worker dies"),)).to_json(),
        "real": world(real, 11.0),
        "simulated": world(simulated, 11.0, fresh=fresh),
    }


def wrong(real: tuple[float, float], simulated: tuple[float, float]) -> list[str]:
    kinds = compare.compare([result(real, simulated)] * compare.FEWEST)
    assert kinds[compare.BEFORE].wrong == []
    return kinds["worker dies"].wrong


def test_worlds_that_are_alike_are_not_told_apart() -> None:
    assert wrong((10, 11), (10, 11)) == []
    assert wrong((10, 11.1), (10, 11)) == []


def test_frames_that_only_the_real_world_loses_are_found_and_the_other_way_round() -> None:
    assert wrong((10, 11), (10, 10)) == ["frames lost"]
    assert wrong((10, 10), (10, 11)) == ["frames lost"]


def test_recovery_that_takes_longer_in_one_world_is_found() -> None:
    assert wrong((10, 13), (10, 11)) == ["frames lost", "recovery"]
    assert "recovery" in wrong((10, 11), (10, 15))


def test_few_faults_are_not_judged() -> None:
    kinds = compare.compare([result((10, 15), (10, 11))] * (compare.FEWEST - 1))
    assert kinds["worker dies"].wrong == []


def test_what_is_simulated_only_is_a_kind_of_the_simulation() -> None:
    assert set(compare.SIMULATED_ONLY) <= set(KINDS)
    every = {fault.kind for seed in range(50) for fault in compare.scenario_of(seed).faults}
    assert every == set(KINDS) - set(compare.SIMULATED_ONLY)


def test_a_mood_reaches_another_process_and_its_hits_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MOODS, str(tmp_path))
    slot, hits = RealHost(tmp_path, list).slot("worker-0"), []
    moods = Moods("worker-0")
    assert moods.get("slow") is None
    slot.moods["slow"] = (3.0, lambda: hits.append(1))
    assert moods.get("slow") == 3.0
    slot.tell_hits()
    slot.tell_hits()
    assert hits == [1]
    del slot.moods["slow"]
    assert moods.get("slow") is None
