"""What a dry run says of the runs that are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment import grid, provenance
from experiment.paths import run_folder
from jellyfish.files.provenance import write_provenance
from scripts.outlook import duration, outlook


@pytest.fixture
def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((grid.ROOT / "config" / "config.yaml").read_text())
    read["client"] = {**read["client"], "stream_s": 100, "start_gap_s": [0, 10]}
    read["grid"] = [
        {
            **read["grid"][0],
            "world": "measured",
            "client": {},
            "device": "cpu",
            "clients": [1, 3],
            "slo_ms": [100],
            "fps": [15],
            "clips": ["vtest-1"],
            "repetitions": 2,
        }
    ]
    return read


def record(config: dict[str, Any], run: grid.Run, results: Path, seconds: int) -> None:
    """Write the provenance of `run` as if it had taken `seconds`."""
    settings = grid.run_settings(config, run.cell, run.clip, run.repetition)
    folder = run_folder(run.key, results)
    folder.mkdir(parents=True)
    made = provenance.collect(
        key=run.key,
        settings=settings,
        world=run.cell.world,
        seed=run.seed,
        device="cpu",
        started="2026-01-01T00:00:00.000+00:00",
    )
    ended = f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}.000+00:00"
    write_provenance(folder, replace(made, ended=ended))


def all_runs(config: dict[str, Any]) -> list[grid.Run]:
    return [run for cell in grid.cells(config) for run in grid.runs(config, cell)]


def test_measured_runs_take_their_streams_and_what_others_took_beyond(
    config: dict[str, Any], tmp_path: Path
) -> None:
    runs = all_runs(config)
    # Twice 100 s and twice 100 + 2 starts of 5, and what is usual beyond it: 8.
    assert outlook(config, runs, tmp_path, 2) == "Runs: 0 of 4 done; the other 4 take about 8 min"
    record(config, runs[0], tmp_path, 120)
    # 100 + 20 and twice 100 + 2 starts of 5 + 20 s
    assert outlook(config, runs, tmp_path, 2) == "Runs: 1 of 4 done; the other 3 take about 6 min"
    for run in runs[1:]:
        record(config, run, tmp_path, 120)
    assert outlook(config, runs, tmp_path, 2) == "Runs: 4 of 4 done"


def test_simulated_runs_take_as_long_a_frame_as_others_did(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["devices"]["gpu"] = {"kind": "emulated", "profile": "synthetic", "max_batch": 12}
    config["grid"][0] |= {"world": "simulated", "device": "gpu"}
    runs = all_runs(config)
    said = outlook(config, runs, tmp_path, 2)
    assert said.endswith("how long the other 4 take is not known: none like them has run here yet")
    record(config, runs[0], tmp_path, 10)
    # 10 s for one client's frames: 30 s each, on two cores.
    assert outlook(config, runs[2:], tmp_path, 2) == (
        "Runs: 0 of 2 done; the other 2 take about 30 s"
    )


def test_durations_as_people_say_them() -> None:
    assert [duration(s) for s in (0.2, 40, 720, 7500)] == ["1 s", "40 s", "12 min", "2 h 5 min"]
