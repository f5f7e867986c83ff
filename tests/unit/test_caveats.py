"""The page that tells which runs are stale and what emulation gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment import grid, provenance
from experiment.disturbance import Disturbance, Told, record
from experiment.paths import latency_path, profile_folder, run_folder
from jellyfish.errors import DataError
from jellyfish.files.atomic import write_json
from jellyfish.files.provenance import Provenance, read_provenance, write_provenance
from jellyfish.files.tables import write_frames
from jellyfish.records import FrameRow, Outcome
from scripts import caveats
from scripts.drift import drifts


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((root / "config" / "config.yaml").read_text())
    block = {"device": "cpu", "world": "measured", "clients": [1], "slo_ms": [100], "fps": [5, 15]}
    read["grid"] = [{**read["grid"][0], **block, "repetitions": 2}]
    return read


@pytest.fixture
def results(config: dict[str, Any], tmp_path: Path) -> Path:
    """Results in which every run is of the present code and profile."""
    folder = profile_folder(config, "cpu", tmp_path)
    folder.mkdir(parents=True)
    (folder / "profile.json").write_text("{}")
    (folder / "profile_raw.csv").write_text("px,batch,p50_ms\n")
    write_rounds(config, tmp_path, Told(), Told())
    digests = {"profile": provenance.file_digest(folder / "profile.json")}
    for run in (run for cell in grid.cells(config) for run in grid.runs(config, cell)):
        run_folder(run.key, tmp_path).mkdir(parents=True)
        made = provenance.collect(
            key=run.key,
            settings=grid.run_settings(config, run.cell, run.clip, run.repetition),
            world="measured",
            seed=run.seed,
            device="cpu",
            started=provenance.now(),
            digests=digests,
        )
        write_provenance(run_folder(run.key, tmp_path), made)
        write_frames(run_folder(run.key, tmp_path) / "frames.parquet", [])
    return tmp_path


def write_rounds(config: dict[str, Any], results: Path, *rounds: Told) -> None:
    """Write a profile's samples with what disturbed each round of them."""
    value = {"rounds": [{**asdict(one), "samples_ms": {}} for one in rounds]}
    write_json(latency_path(config, "cpu", results), value)


def alter(
    config: dict[str, Any], results: Path, n: int, change: Callable[[Provenance], Provenance]
) -> str:
    """Change what the n-th run of the first cell records; return the cell's name."""
    cell = grid.cells(config)[0]
    folder = run_folder(grid.runs(config, cell)[n].key, results)
    write_provenance(folder, change(read_provenance(folder)))
    return cell.name


def test_nothing_is_stale_at_first(config: dict[str, Any], results: Path) -> None:
    assert caveats.stale_cells(config, results) == []
    page = caveats.main(config, results).read_text()
    assert "All 4 runs were made with the present code and profiles." in page
    assert "stale" not in page


def test_a_run_of_other_code_is_told(config: dict[str, Any], results: Path) -> None:
    name = alter(
        config,
        results,
        1,
        lambda made: replace(made, code_digest="0" * 16, commit="abcdef0123456789", dirty=True),
    )
    (cell,) = caveats.stale_cells(config, results)
    assert (cell.cell, cell.runs, cell.of, cell.differs) == (name, 1, 2, ("code",))
    assert cell.commits == ("abcdef0123+",)
    page = caveats.main(config, results).read_text()
    assert "<b>1 of 4 runs are stale</b>" in page
    assert f"<td>{name}</td><td>1 of 2</td><td>code</td><td>abcdef0123+</td>" in page


def test_a_profile_measured_anew_is_told(config: dict[str, Any], results: Path) -> None:
    (profile_folder(config, "cpu", results) / "profile.json").write_text('{"another": 1}')
    found = caveats.stale_cells(config, results)
    assert [(cell.runs, cell.differs) for cell in found] == [(2, ("profile",))] * 2


def test_cells_that_are_missing_are_passed_over(config: dict[str, Any], results: Path) -> None:
    name = alter(config, results, 0, lambda made: replace(made, code_digest="x"))
    assert caveats.stale_cells(config, results, missing=[name]) == []
    assert "All 2 runs" in caveats.main(config, results, missing=[name]).read_text()


def test_a_run_without_provenance_is_named(config: dict[str, Any], results: Path) -> None:
    key = grid.runs(config, grid.cells(config)[0])[0].key
    (run_folder(key, results) / "provenance.json").unlink()
    with pytest.raises(DataError, match=key):
        caveats.main(config, results)


def test_runs_that_others_disturbed_are_told(config: dict[str, Any], results: Path) -> None:
    page = caveats.main(config, results).read_text()
    assert "<b>4 were not watched</b>" in page
    calm, busy = Disturbance(0.01, 0.002, 0.05), Disturbance(0.071, 0.02, 0.3)
    first, second = grid.cells(config)
    for cell, found in ((first, Told(calm)), (second, Told(busy, True, (busy, busy)))):
        for run in grid.runs(config, cell):
            record(run_folder(run.key, results), found)
    page = caveats.main(config, results).read_text()
    assert "2 of 4 measured runs were disturbed; 4 tries that were disturbed were measured" in page
    row = "<td>2 of 2</td><td>7.1%</td><td>2.0%</td><td>30.0%</td>"
    assert f"<td>{second.name}</td>{row}" in page
    assert f"<td>{first.name}</td>" not in page
    page = caveats.main(config, results, missing=[second.name]).read_text()
    assert "<b>0 of 2 measured runs were disturbed</b>" in page


def test_rounds_of_profiling_that_others_disturbed_are_told(
    config: dict[str, Any], results: Path
) -> None:
    busy = Disturbance(0.071, 0.02, 0.3)
    write_rounds(config, results, Told(busy, True, (busy,)), Told(Disturbance(0.0, 0.0, 0.0)))
    said = "<p>Rounds of profiling that were disturbed: 1 of 2 on cpu.</p>"
    assert said in caveats.main(config, results).read_text()
    config["devices"]["gpu"] = {"kind": "emulated", "profile": "cpu"}
    emulating = {**config, "grid": [{**config["grid"][0], "device": "gpu"}]}
    assert [len(of) for of in caveats.disturbed_rounds(emulating, results).values()] == [2]
    latency_path(config, "cpu", results).write_text("{}")
    with pytest.raises(DataError, match=r"latency\.json cannot be used"):
        caveats.main(config, results)


def test_a_device_that_was_not_as_fast_as_profiled_is_told(
    config: dict[str, Any], results: Path
) -> None:
    def rows(ms: float) -> list[FrameRow]:
        made = [FrameRow(0, k, k, 5, 100, k / 5, outcome=Outcome.OK) for k in range(100)]
        for k, row in enumerate(made):
            row.dnn_px, row.batch = (128, 1) if k < 90 else (160, 1)  # 10 of 160: too few
            row.decode_ms, row.execute_ms = 1.0, ms - 1.0 if k < 90 else 1000.0
        return made

    first, second = grid.cells(config)
    for cell, ms in ((first, 10.5), (second, 13.0)):
        for run in grid.runs(config, cell):
            write_frames(run_folder(run.key, results) / "frames.parquet", rows(ms))
    raw = profile_folder(config, "cpu", results) / "profile_raw.csv"
    raw.write_text("px,batch,p50_ms\n128,1,10.0\n160,1,20.0\n")
    assert drifts(config, results) == pytest.approx({first.name: 1.05, second.name: 1.3})
    page = caveats.main(config, results).read_text()
    assert "batches took 1.05 to 1.30 times as long as profiled" in page
    assert "<b>in 1 of 2 cells more than 10% off</b>" in page
    assert f"<tr><td>{second.name}</td><td>1.30</td></tr>" in page
    assert f"<td>{first.name}</td>" not in page
    padding = {**config, "grid": [{**config["grid"][0], "policies": ["paper"]}]}
    assert drifts(padding, results) == {}  # nor is a run looked for
    raw.write_text("no,table\n")
    with pytest.raises(DataError, match=r"profile_raw\.csv is no table of a profile"):
        caveats.main(config, results)


def test_the_error_of_the_size_rule_is_printed(tmp_path: Path) -> None:
    rule = tmp_path / "size_rule.csv"
    rule.write_text(
        "sent_px,dnn_px,f1_scaled_up,f1_rule,error\n"
        "128,224,0.1100,0.1000,-0.0100\n320,416,0.7000,0.6580,-0.0420\n"
    )
    page = caveats.html([], 3, [rule], small=0.123)
    assert "12.3 % of the answered frames here" in page
    assert "F1 comes out up to 0.042 too low</b>" in page
    assert "<td>320</td><td>416</td><td>0.700</td><td>0.658</td><td>-0.042</td>" in page
    rule.write_text("no,table\n")
    with pytest.raises(DataError, match=r"size_rule\.csv is no table"):
        caveats.html([], 3, [rule])


def test_frames_that_were_sent_small_are_counted(config: dict[str, Any], tmp_path: Path) -> None:
    config["devices"]["cpu"] = {"kind": "emulated", "profile": "synthetic", "max_batch": 2}
    sent = [(128, Outcome.OK), (320, Outcome.OK), (128, Outcome.LATE), (320, Outcome.OK)]
    rows = [
        FrameRow(
            client=0, frame=k, clip_frame=k, fps=5, slo_ms=100, capture_s=k / 5,
            outcome=outcome, px_sent=px, dnn_px=320,
        )
        for k, (px, outcome) in enumerate(sent)
    ]  # fmt: skip
    for run in (run for cell in grid.cells(config) for run in grid.runs(config, cell)):
        run_folder(run.key, tmp_path).mkdir(parents=True)
        write_frames(run_folder(run.key, tmp_path) / "frames.parquet", rows)
    assert caveats.share_sent_small(config, tmp_path) == pytest.approx(1 / 3)
    config["devices"]["cpu"] = {"kind": "onnxruntime"}
    assert caveats.share_sent_small(config, tmp_path) == 0.0
