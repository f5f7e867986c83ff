"""A cell on this machine: gRPC, worker processes, relays, a real DNN, real video."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.session import expected_ticks
from experiment import grid, paths, processes
from experiment import run as run_module
from experiment.cell import run_cell
from experiment.disturbance import told
from experiment.leftovers import FORCED
from jellyfish.errors import DataError, RunError
from jellyfish.files.atomic import read_json
from jellyfish.files.detections import CLIENT_STRIDE, read_coco
from jellyfish.files.profiles import write_profile
from jellyfish.files.provenance import read_provenance
from jellyfish.files.tables import read_table
from jellyfish.profile import Profile
from jellyfish.records import Outcome
from scripts import clips, export_zoo
from tests.orphan import another_program

Config = dict[str, Any]
STREAM_S = 3.0


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    value: Config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    block = {
        "world": "measured",
        "device": "cpu",
        "workers": 1,
        "traces": ["synthetic"],
        "clients": [],
        "slo_ms": [],
        "fps": [],
        "mixed": ["two"],
        "clips": ["vtest-1"],
        "repetitions": 1,
    }
    value["clips"]["vtest-1"]["frames"] = 30
    value["client"] |= {"stream_s": STREAM_S, "start_gap_s": [0.2, 0.5]}
    return value | {"grid": [block], "mixed": {"two": [[300, 10], [400, 7]]}, "scenario": "test"}


@pytest.fixture(scope="module")
def results(
    config: Config, root: Path, assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Everything that a cell needs; the profile is made up."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "data").mkdir()
    for name in ("weights", "videos"):
        (folder / "data" / name).symlink_to(assets / name)
    export_zoo.main(config, root, folder)
    clips.main(config, "vtest-1", root, folder)
    px = paths.zoo_of(config).input_px
    profile = Profile(
        input_px=px,
        frame_bytes=[px * px / 2.5 for px in px],
        accuracy=[i / len(px) for i in range(len(px))],
        latency_ms=[[10 + 10 * i, 20 + 20 * i] for i in range(len(px))],
    )
    write_profile(paths.profile_folder(config, "cpu", folder) / "profile.json", profile)
    return folder


MANAGER = """
import json, sys
from pathlib import Path
from experiment import grid
from experiment.cell import run_cell
config = json.loads(sys.argv[1])
(cell,) = grid.cells(config)
run_cell(config, cell, Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def killed(config: Config, results: Path, root: Path) -> list[processes.ProcessId]:
    """Kill a manager in the middle of the cell's run; return what was alive below it."""
    command = [sys.executable, "-c", MANAGER, json.dumps(config), str(results)]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as manager:
        deadline = time.monotonic() + 60
        while not list((results / "runs").glob(".*.part/client-1.ready.json")):
            assert manager.poll() is None, manager.stderr and manager.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)  # into the stream
        below = processes.descendants(manager.pid)
        manager.kill()
    return below


@pytest.fixture(scope="module")
def done(
    config: Config, results: Path, killed: list[processes.ProcessId]
) -> tuple[grid.Run, Path, dict[str, Any]]:
    """Return the cell's run, its directory and the cell's index, from the run after the kill."""
    (cell,) = grid.cells(config)
    index = read_json(run_cell(config, cell, results))
    (run,) = grid.runs(config, cell)
    return run, paths.run_folder(run.key, results), index


def test_a_killed_manager_leaves_no_process(killed: list[processes.ProcessId]) -> None:
    assert len(killed) >= 6  # server, its worker and planner, two clients, two relays
    assert processes.wait_gone(killed, 5.0) == []


def test_every_client_has_one_row_a_tick(
    done: tuple[grid.Run, Path, dict[str, Any]], config: Config
) -> None:
    run, folder, index = done
    frames = read_table(folder / "frames.parquet").to_pandas()
    assert sorted(frames["client"].unique()) == [0, 1]
    for client, spec in enumerate(run.cell.clients):
        mine = frames[frames["client"] == client].reset_index()
        assert len(mine) == expected_ticks(STREAM_S, spec.fps)
        assert mine["frame"].tolist() == list(range(len(mine)))
        assert mine["clip_frame"].tolist() == [k % 30 for k in range(len(mine))]
        ticks = mine["capture_s"] - mine["capture_s"][0] - mine["frame"] / spec.fps
        assert ticks.abs().max() < 1e-6
    starts = frames.groupby("client")["capture_s"].min()
    low, high = config["client"]["start_gap_s"]
    assert low - 0.1 < starts[1] - starts[0] < high + 1.0
    assert frames["run"].unique().tolist() == [run.key]
    assert frames["latencies"].unique().tolist() == ["cpu: onnxruntime"]
    assert (frames["outcome"] == Outcome.OK).mean() > 0.3
    assert index["runs"][0]["key"] == run.key
    assert index["runs"][0]["outcomes"] == dict(Counter(frames["outcome"]))


def test_rows_agree_with_the_counts_of_server_and_relay(
    done: tuple[grid.Run, Path, dict[str, Any]],
) -> None:
    _, folder, _ = done
    frames = read_table(folder / "frames.parquet").to_pandas()
    counted = read_json(folder / "server.json")["clients"]
    for client in (0, 1):
        mine = frames[frames["client"] == client]
        told = read_json(folder / f"client-{client}.json")
        sent = mine[mine["bytes_up"] > 0]
        server = counted[f"client-{client}"]
        assert told["sent"] == len(sent) == server["received"]
        answered = mine["outcome"].isin([Outcome.OK, Outcome.LATE])
        assert int(answered.sum()) == server["ok"]
        assert int((mine["outcome"] == Outcome.DROPPED).sum()) == server["dropped"]
        assert told["relay"]["bytes_up"] > sent["bytes_up"].sum()
        assert told["relay"]["bytes_down"] > mine["bytes_down"].sum()


def test_detections_are_those_of_answered_frames(
    done: tuple[grid.Run, Path, dict[str, Any]],
) -> None:
    _, folder, _ = done
    frames = read_table(folder / "frames.parquet").to_pandas()
    answered = frames[frames["outcome"].isin([Outcome.OK, Outcome.LATE])]
    images = set(answered["client"] * CLIENT_STRIDE + answered["frame"])
    found = read_coco(folder / "detections.json")
    assert found
    assert set(found) <= images
    assert len(read_table(folder / "plans.parquet")) >= STREAM_S


def test_a_run_says_where_it_is_from_and_keeps_no_working_files(
    done: tuple[grid.Run, Path, dict[str, Any]], results: Path
) -> None:
    run, folder, _ = done
    made = read_provenance(folder)
    assert (made.key, made.seed, made.world) == (run.key, run.seed, "measured")
    assert made.started < made.ended
    assert sorted(path.name for path in folder.iterdir()) == [
        "client-0.json",
        "client-1.json",
        "cpu.json",
        "detections.json",
        "disturbance.json",
        "frames.parquet",
        "jobs",
        "logs",
        "plans.parquet",
        "provenance.json",
        "server.json",
    ]
    assert [path.name for path in (results / "runs").iterdir()] == [run.key]  # no .part


def test_more_repetitions_run_only_what_is_new(
    done: tuple[grid.Run, Path, dict[str, Any]], config: Config, results: Path
) -> None:
    run, folder, _ = done
    before = (folder / "provenance.json").stat()
    more = {**config, "grid": [{**config["grid"][0], "repetitions": 2}]}
    (cell,) = grid.cells(more)
    index = read_json(run_cell(more, cell, results))
    assert [row["key"] for row in index["runs"]] == [r.key for r in grid.runs(more, cell)]
    assert index["runs"][0]["key"] == run.key
    assert (folder / "provenance.json").stat() == before
    assert index["runs"][1]["seed"] != run.seed


def test_a_disturbed_run_is_measured_again_and_told(
    config: Config, results: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    measuring = {"measuring": {"disturbed": 0.1, "tries": 2}}
    other = {**config, **measuring, "grid": [{**config["grid"][0], "policies": ["static"]}]}
    (cell,) = grid.cells(other)
    (run,) = grid.runs(other, cell)
    with another_program() as pid:
        run_cell(other, cell, results)
        assert processes.identify(pid) is not None
    tale = told(paths.run_folder(run.key, results))
    assert tale.disturbed
    assert len(tale.discarded) == 1
    assert tale.of is not None
    assert min(tale.of.others, tale.discarded[0].others) > 0.1
    said = capfd.readouterr().err
    assert f"{run.key}: disturbed, measured again: " in said
    assert f"{run.key}: disturbed, kept all the same: " in said


def test_a_server_that_dies_at_start_is_shown_with_its_log(
    config: Config, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "profiles"):
        (tmp_path / name).symlink_to(results / name)
    model = paths.onnx_path(config, tmp_path)
    model.parent.mkdir(parents=True)
    model.write_bytes(b"no model")
    (cell,) = grid.cells(config)
    (run,) = grid.runs(config, cell)
    old = paths.run_folder(run.key, tmp_path)
    old.mkdir(parents=True)
    (old / "frames.parquet").write_text("from an earlier run")
    monkeypatch.setenv(FORCED, "cell")
    with pytest.raises(RunError, match=r"server ended before it was ready \(exit code 1\)") as seen:
        run_cell(config, cell, tmp_path)
    assert "model.onnx" in str(seen.value)
    assert not old.exists()  # --forcerun: an earlier result is not believed any more
    assert not (tmp_path / "test").exists()
    assert [
        p for p in processes.descendants(os.getpid()) if "server" in processes.command(p.pid)
    ] == []


def test_a_missing_profile_is_named_before_anything_starts(
    config: Config, results: Path, tmp_path: Path
) -> None:
    for name in ("data", "zoo"):
        (tmp_path / name).symlink_to(results / name)
    (cell,) = grid.cells(config)
    with pytest.raises(DataError, match=r"profile\.json is missing; `snakemake"):
        run_cell(config, cell, tmp_path)


def test_a_full_disk_is_one_clear_error(
    config: Config, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = grid.cells(config)
    monkeypatch.setattr(run_module, "MIN_FREE_MB", 10**12)
    with pytest.raises(DataError, match=r"the disk of .*runs is full: \d+ MB free"):
        run_cell(config, cell, tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []
