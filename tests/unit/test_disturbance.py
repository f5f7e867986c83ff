"""Whose CPU time it was during a run, and when that says that the run was disturbed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiment import cpu_watch, processes
from experiment.cores import awake
from experiment.disturbance import Disturbance, Told, record, told, watched
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json, write_json
from tests.orphan import BURN, another_program

MAY_KEEP_AWAKE = os.access("/dev/cpu_dma_latency", os.R_OK | os.W_OK)


def samples(
    run: list[float], busy: list[float], stolen: list[float], machine: str = "a", first_s: float = 9
) -> dict[str, Any]:
    times = [first_s + k for k in range(len(run))]
    columns = {"time_s": times, "run": run, "busy": busy, "stolen": stolen}
    return {"machine": machine, "cores": 2, **columns}


def test_what_is_neither_the_runs_nor_idle_is_others(tmp_path: Path) -> None:
    write_json(tmp_path / "cpu.json", samples([0.2, 0.3], [0.25, 0.45], [0.0, 0.1]))
    found = watched(tmp_path)
    assert found is not None
    assert (found.others, found.stolen) == pytest.approx((0.1, 0.05))
    assert found.worst == pytest.approx(0.25)
    assert found.share == pytest.approx(0.15)


def test_a_run_that_takes_all_that_is_taken_is_not_disturbed(tmp_path: Path) -> None:
    # clock ticks: what a process took and what the machine says differ a little either way
    write_json(tmp_path / "cpu.json", samples([0.52, 0.49], [0.5, 0.5], [0, 0]))
    found = watched(tmp_path)
    assert found is not None
    assert found.share == 0
    assert found.worst == pytest.approx(0.01)


@pytest.mark.parametrize("later_s", [1, 3600])  # a container may have a clock of its own
def test_hosts_that_are_one_machine_do_not_disturb_each_other(
    tmp_path: Path, later_s: float
) -> None:
    write_json(tmp_path / "hosts/s/cpu.json", samples([0.3, 0.3, 0.3], [0.6] * 3, [0.01] * 3))
    write_json(
        tmp_path / "hosts/c/cpu.json",
        samples([0.25, 0.25], [0.6] * 2, [0.01] * 2, "a", 9 + later_s),
    )
    found = watched(tmp_path)
    assert found is not None
    assert (found.others, found.stolen) == pytest.approx((0.05, 0.01))


def test_the_host_that_fares_worst_counts(tmp_path: Path) -> None:
    write_json(tmp_path / "hosts/s/cpu.json", samples([0.3], [0.31], [0.0], "a"))
    write_json(tmp_path / "hosts/c/cpu.json", samples([0.1], [0.1], [0.2], "b"))
    found = watched(tmp_path)
    assert found is not None
    assert (found.others, found.stolen) == pytest.approx((0.0, 0.2))


def test_a_run_that_nobody_watched_tells_nothing(tmp_path: Path) -> None:
    assert watched(tmp_path) is None
    write_json(tmp_path / "cpu.json", samples([], [], []))
    assert watched(tmp_path) is None
    assert told(tmp_path) == Told()


@pytest.mark.parametrize("content", ["{}", "[1]", '{"machine": "a", "cores": 1}', "no JSON"])
def test_a_broken_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "cpu.json").write_text(content)
    with pytest.raises(DataError, match=r"cpu\.json"):
        watched(tmp_path)


shares = st.floats(0, 1)
disturbances = st.builds(Disturbance, others=shares, stolen=shares, worst=shares)


@given(of=disturbances, disturbed=st.booleans(), discarded=st.lists(disturbances, max_size=2))
def test_what_is_recorded_is_told(
    tmp_path_factory: pytest.TempPathFactory,
    of: Disturbance,
    disturbed: bool,
    discarded: list[Disturbance],
) -> None:
    folder = tmp_path_factory.mktemp("run")
    before = Told(of, disturbed, tuple(discarded))
    record(folder, before)
    assert told(folder) == before


def test_a_broken_tale_is_named(tmp_path: Path) -> None:
    (tmp_path / "disturbance.json").write_text('{"of": {"others": 1}}')
    with pytest.raises(DataError, match=r"disturbance\.json cannot be used"):
        told(tmp_path)


@pytest.mark.alone
def test_what_descends_from_its_parent_is_the_run(tmp_path: Path) -> None:
    watch = subprocess.Popen([sys.executable, "-m", "experiment.cpu_watch", str(tmp_path)])
    try:
        _burn_for(2.5)  # this process is its parent
        with another_program():
            time.sleep(2.5)
    finally:
        watch.terminate()
        assert watch.wait(10) == 0
    found = read_json(tmp_path / "cpu.json")
    assert found["awake"] == MAY_KEEP_AWAKE
    columns = [found[name] for name in ("time_s", "run", "busy", "stolen")]
    assert len({len(column) for column in columns}) == 1
    assert max(found["run"]) * found["cores"] > 0.5
    alone = found["run"].index(min(found["run"]))
    assert (found["busy"][alone] - found["run"][alone]) * found["cores"] > 0.5
    assert all(0 <= share <= 1.2 for column in columns[1:] for share in column)


def _burn_for(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.alone
def test_the_time_of_a_tree_counts_what_runs_below_and_what_has_ended() -> None:
    def spent_s() -> float:
        return processes.cpu_of_tree(os.getpid())

    alone_s, times = spent_s(), os.times()
    assert alone_s == pytest.approx(sum(times[:4]), abs=0.3)
    child = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        time.sleep(1.0)
        below_s = spent_s() - alone_s
        assert below_s > 0.1
    finally:
        child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended_s = spent_s() - alone_s  # nobody has waited for it
    child.wait()
    assert below_s <= ended_s <= spent_s() - alone_s
    busy_s, stolen_s = processes.cpu_of_machine()
    assert busy_s > spent_s()
    assert stolen_s >= 0


def test_two_samples_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = cpu_watch.Watch(os.getpid())
    watch.sample()
    assert watch.time_s == []
    monkeypatch.setattr(cpu_watch, "SHORTEST_S", 0.0)
    watch.sample()
    assert len(watch.time_s) == 1
    assert json.dumps(watch.as_json())


@pytest.mark.skipif(not MAY_KEEP_AWAKE, reason="needs root")
def test_cores_are_kept_awake_only_meanwhile() -> None:
    def asked_us() -> int:
        """Return how long waking may take, by all who ask."""
        return int(struct.unpack("i", Path("/dev/cpu_dma_latency").read_bytes())[0])

    before_us = asked_us()
    with awake() as permitted:
        assert permitted
        assert asked_us() == 0
    assert asked_us() == before_us


def test_who_may_not_keep_cores_awake_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiment.cores._LATENCY", "/no/such/device")
    with awake() as permitted:
        assert not permitted
