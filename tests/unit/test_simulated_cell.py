"""A simulated cell: the same files as a measured one, made again only when something changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.policies import FRAMES as COUNTED
from benchmarks.policies import FROM_SEND, FROM_TICK, TP, tally
from experiment import grid, paths, provenance, simulation, virtual_serving
from experiment.cell import complete, run_cell
from experiment.grid import Cell, Run
from experiment.simulation import simulate
from experiment.stored_answers import write_detections
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.detections import image_id, read_coco
from jellyfish.files.profiles import read_profile, write_profile
from jellyfish.files.provenance import read_provenance
from jellyfish.files.tables import FRAMES, read_table
from jellyfish.policy import policy
from jellyfish.profile import Profile
from tests.kernels import KEPT
from tests.simulated import clip, latency_ms

Config = dict[str, Any]


@pytest.fixture
def config(root: Path) -> Config:
    value: Config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    block = {
        "world": "simulated",
        "device": "gpu",
        "workers": 2,
        "traces": ["synthetic"],
        "clients": [2],
        "slo_ms": [100],
        "fps": [15],
        "clips": ["vtest-1"],
        "repetitions": 2,
    }
    value["devices"]["gpu"] = {"kind": "emulated", "profile": "synthetic", "max_batch": 8}
    value["client"] |= {"stream_s": 4.0, "start_gap_s": [0.2, 0.5]}
    value["simulation"] = {
        "downlink_mbps": 100,
        "queue_limit_bytes": None,
        "scheduler_ms": 1.0,
        "server_ms": 0.3,
        "hand_over_ms": 0.5,
        "device_ms": 2.0,
        "transport_ms": 0,
        "answer_ms": [0, 0.1, 0.4],
    }
    return value | {"grid": [block], "mixed": {}, "scenario": "test"}


@pytest.fixture
def results(config: Config, tmp_path: Path) -> Path:
    px = paths.zoo_of(config).input_px
    table = [[latency_ms(p, b) for b in range(1, 9)] for p in px]
    profile = Profile(
        input_px=px,
        frame_bytes=[p * p * 3 / 7 for p in px],
        accuracy=[i / len(px) for i in range(len(px))],
        latency_ms=table,
    )
    folder = paths.profile_folder(config, "gpu", tmp_path)
    write_profile(folder / "profile.json", profile)
    model = {"kind": "jitter", "latency_ms": table, "sigma": 0.06, "cap": 1.3}
    write_json(folder / "emulation.json", model)
    for p, found in clip(px).items():
        write_clip_detections(paths.detections_path(config, "vtest-1", p, tmp_path), found)
    return tmp_path


@pytest.fixture
def cell(config: Config) -> Cell:
    (found,) = grid.cells(config)
    return found


@pytest.fixture
def run(config: Config, cell: Cell) -> Run:
    return grid.runs(config, cell)[0]


def test_a_cell_has_the_files_of_a_measured_one(
    config: Config, cell: Cell, run: Run, results: Path
) -> None:
    index = read_json(run_cell(config, cell, results))
    assert cell.name.startswith("simulated-")
    assert [row["frames"] for row in index["runs"]] == [120, 120]
    folder = paths.run_folder(run.key, results)
    frames = read_table(folder / "frames.parquet")
    assert frames.column_names[: len(FRAMES.names)] == FRAMES.names
    assert set(frames.column("world").to_pylist()) == {"simulated"}
    assert set(frames.column("latencies").to_pylist()) == {"emulated synthetic"}
    assert len(read_table(folder / "plans.parquet")) >= 8
    assert not (folder / "detections.json").exists()  # the rows say all that is needed
    assert len(read_json(folder / "server.json")["clients"]) == 2
    made = read_provenance(folder)
    assert (made.world, made.device) == ("simulated", "emulated synthetic")
    assert not list((results / "runs").glob(".*"))


def test_the_comparison_of_policies_counts_what_the_run_wrote(
    config: Config, run: Run, results: Path
) -> None:
    reference = paths.zoo_of(config).reference_px
    write_clip_detections(
        paths.detections_path(config, "vtest-1", reference, results), clip((352,))[352]
    )
    counted = tally(config, run, policy(run.cell.policy), results)
    simulate(config, run, results)
    rows = read_table(paths.run_folder(run.key, results) / "frames.parquet").to_pylist()
    assert counted[COUNTED] == len(rows) == 120
    assert counted[FROM_TICK] == sum(row["outcome"] != "ok" for row in rows)
    assert counted[FROM_SEND] <= counted[FROM_TICK]
    assert counted[TP] > 0


def test_only_what_changed_is_made_again(
    config: Config, cell: Cell, run: Run, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cell(config, cell, results)
    assert complete(config, run, results)
    folder = paths.run_folder(run.key, results)
    before = (folder / "provenance.json").stat().st_mtime_ns
    run_cell(config, cell, results)
    assert (folder / "provenance.json").stat().st_mtime_ns == before
    model = paths.profile_folder(config, "gpu", results) / "emulation.json"
    write_json(model, {**read_json(model), "sigma": 0.0})
    assert not complete(config, run, results)
    run_cell(config, cell, results)
    assert complete(config, run, results)
    monkeypatch.setattr(simulation, "code_digest", lambda root: "another code")
    assert not complete(config, run, results)
    monkeypatch.undo()
    assert complete(config, run, results)
    stored = paths.detections_path(config, "vtest-1", 320, results)
    write_clip_detections(stored, clip((352,))[352])
    assert not complete(config, run, results)
    model.unlink()
    assert not complete(config, run, results)


def test_what_came_back_can_be_written_out(config: Config, run: Run, results: Path) -> None:
    simulate(config, run, results)
    found = read_coco(write_detections(config, run, results, results / "detections.json"))
    served = virtual_serving.serve(simulation.scene_of(config, run, results))
    came_back = {
        image_id(client, tick): boxes
        for client, ticks in enumerate(served.detections)
        for tick, boxes in ticks.items()
    }
    assert set(found) == {image for image, boxes in came_back.items() if len(boxes)}
    assert len(found) > 100
    for image, boxes in found.items():
        np.testing.assert_allclose(boxes.boxes, came_back[image].boxes, atol=1e-6)
        np.testing.assert_allclose(boxes.scores, came_back[image].scores, atol=1e-6)


BODY = """
import json, sys
from pathlib import Path
from experiment import grid, simulation
config = json.loads(sys.argv[1])
(cell,) = grid.cells(config)
simulation.simulate(config, grid.runs(config, cell)[0], Path(sys.argv[2]))
"""


def test_the_same_bytes_in_every_process(
    config: Config, run: Run, results: Path, root: Path
) -> None:
    seen = set()
    for seed in ("0", "5"):
        subprocess.run(
            [sys.executable, "-c", BODY, json.dumps(config), str(results)],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", **KEPT},
            check=True,
        )
        folder = paths.run_folder(run.key, results)
        names = ("frames.parquet", "plans.parquet", "server.json")
        content = b"".join((folder / name).read_bytes() for name in names)
        seen.add(hashlib.sha256(content).hexdigest())
    assert len(seen) == 1


def test_what_is_missing_is_named(config: Config, run: Run, results: Path) -> None:
    path = paths.detections_path(config, "vtest-1", 320, results)
    path.unlink()
    with pytest.raises(DataError, match=str(path)):
        simulation.simulate(config, run, results)
    folder = paths.profile_folder(config, "gpu", results)
    model = read_json(folder / "emulation.json")
    write_json(folder / "emulation.json", {**model, "latency_ms": model["latency_ms"][:3]})
    with pytest.raises(DataError, match=r"emulation\.json has 3 DNNs"):
        simulation.simulate(config, run, results)


def test_a_profile_that_lacks_a_dnn_names_it(config: Config, run: Run, results: Path) -> None:
    path = paths.profile_folder(config, "gpu", results) / "profile.json"
    whole = read_profile(path)
    kept = [i for i, px in enumerate(whole.input_px) if px not in (224, 608)]
    write_profile(
        path,
        Profile(
            input_px=whole.input_px[kept],
            frame_bytes=whole.frame_bytes[kept],
            accuracy=whole.accuracy[kept],
            latency_ms=whole.latency_ms[kept],
        ),
    )
    with pytest.raises(DataError, match=rf"{path} lacks the zoo's DNN at 224, 608 px"):
        simulation.simulate(config, run, results)


def test_its_code_is_what_it_is_made_of(root: Path) -> None:
    code = "import sys, experiment.simulation; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    used = {name for name in done.stdout.split() if name.startswith("experiment.")}
    named = {name.removesuffix(".py").replace("/", ".") for name in provenance.SIMULATED_CODE}
    # What these decide is in the names of runs and profiles, or is looked at by whoever reads.
    apart = {f"experiment.{name}" for name in ("collect", "cores", "grid", "paths", "provenance")}
    assert used - apart <= named
    assert {"jellyfish", "server", "client"} <= named


def test_a_real_device_cannot_be_simulated(config: Config, results: Path) -> None:
    config["grid"][0]["device"] = "cpu"
    (cell,) = grid.cells(config)
    with pytest.raises(ConfigError, match="device cpu"):
        simulation.simulate(config, grid.runs(config, cell)[0], results)
