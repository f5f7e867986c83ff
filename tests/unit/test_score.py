from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiment.disturbance import Disturbance, Told, record
from experiment.grid import cells, detections_key, runs
from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.clip_detections import ClipDetections, write_clip_detections
from jellyfish.files.detections import image_id, write_coco
from jellyfish.files.tables import write_frames
from jellyfish.records import FrameRow, Outcome
from scripts import tables
from scripts.score import main
from scripts.scored import COLUMNS, MISSES

CLIP_FRAMES = 20
PERSON, CAR = 0, 2


def boxes(n: int, label: int = PERSON) -> Detections:
    """Return `n` boxes that do not overlap."""
    left = np.arange(n, dtype=np.float32) * 0.1
    return Detections(
        boxes=np.stack([left, left, left + 0.08, left + 0.08], axis=1),
        scores=np.full(n, 0.9, np.float32),
        classes=np.full(n, label, np.int32),
    )


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((root / "config" / "config.yaml").read_text())
    config["clips"] = {"a": {"asset": "vtest", "first": 0, "frames": CLIP_FRAMES}}
    config["profile"]["clip"] = "a"
    config["mixed"] = {"2_var_var": [[75, 15], [100, 25]]}
    config["grid"] = [
        {
            "world": "measured",
            "device": "cpu",
            "workers": 1,
            "traces": ["synthetic"],
            "clients": [1],
            "mixed": ["2_var_var"],
            "slo_ms": [100],
            "fps": [10],
            "clips": ["a"],
            "repetitions": 2,
        }
    ]
    return config


def row(client: int, frame: int, outcome: Outcome) -> FrameRow:
    """Return a frame of a client whose bandwidth and size change every second."""
    second = frame // 10
    made = FrameRow(client, frame, frame % CLIP_FRAMES, 10, 100, frame / 10)
    made.outcome, made.px_sent, made.bytes_up = outcome, 128 + 32 * (second % 3), 1000
    made.bandwidth_true_kbps = 5000 + 1000 * (second % 3)
    if outcome in (Outcome.OK, Outcome.LATE):
        made.e2e_ms, made.send_ms, made.dnn_px = 50.0 + frame, 40.0 + frame, made.px_sent
        made.wait_ms = 4.0
    return made


def write_run(folder: Path, rows: list[FrameRow], answers: dict[int, Detections]) -> None:
    write_frames(folder / "frames.parquet", rows)
    write_coco(folder / "detections.json", answers, 768, 576)


def write_reference(path: Path, frames: dict[int, Detections]) -> None:
    sizes = np.full(len(frames), 1000)
    write_clip_detections(path, ClipDetections(tuple(frames.values()), sizes, 768, 576))


def outcomes(repetition: int) -> list[Outcome]:
    """Return 40 outcomes: in the first repetition 30 ok, and of each miss 2."""
    misses = [miss for miss in MISSES for _ in range(2)] if repetition == 0 else []
    return misses + [Outcome.OK] * (40 - len(misses))


@pytest.fixture
def results(config: dict[str, Any], tmp_path: Path) -> Path:
    """Two persons in every frame; answers in time find one of them, late ones both."""
    key = detections_key(config, "a")
    reference = {k: boxes(2) for k in range(CLIP_FRAMES)}
    write_reference(tmp_path / "detections" / key / "640.npz", reference)
    found = {Outcome.OK: boxes(1), Outcome.LATE: boxes(2)}
    for cell in cells(config):
        for run in runs(config, cell):
            rows = [
                row(client, frame, outcome)
                for client in range(len(cell.clients))
                for frame, outcome in enumerate(outcomes(run.repetition))
            ]
            answers = {
                image_id(r.client, r.frame): found[r.outcome] for r in rows if r.outcome in found
            }
            write_run(tmp_path / "runs" / run.key, rows, answers)
    return tmp_path


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def test_one_row_a_run_with_every_column_explained(
    config: dict[str, Any], results: Path, root: Path
) -> None:
    path = main(config, results, root)
    scores = read(path)
    assert list(scores.columns) == list(COLUMNS)
    assert list(scores["run"]) == [r.key for cell in cells(config) for r in runs(config, cell)]
    assert list(scores["slo"]) == ["100", "100", "var", "var"]
    assert list(scores["clients"]) == [1, 1, 2, 2]
    assert set(scores["latencies"]) == {"cpu: onnxruntime"}
    written = pd.read_csv(path.with_suffix(".csv"))
    assert list(written.columns) == list(COLUMNS)
    np.testing.assert_allclose(written["f1_strict_all"], scores["f1_strict_all"], rtol=1e-5)


def test_the_misses_are_the_sum_of_their_parts(
    config: dict[str, Any], results: Path, root: Path
) -> None:
    scores = read(main(config, results, root)).iloc[0]
    assert (scores["frames"], scores["ok"]) == (40, 30)
    assert scores["miss_rate"] == pytest.approx(0.25)
    for miss in MISSES:
        assert scores[f"{miss}_rate"] == pytest.approx(0.05)
    assert scores["miss_rate"] == pytest.approx(sum(scores[f"{m}_rate"] for m in MISSES))


def test_only_what_came_in_time_is_right(config: dict[str, Any], results: Path, root: Path) -> None:
    scores = read(main(config, results, root)).iloc[0]
    for matching in ("strict", "published"):
        assert scores[f"precision_{matching}_all"] == 1.0
        assert scores[f"recall_{matching}_answered"] == pytest.approx(30 / 60)
        assert scores[f"recall_{matching}_all"] == pytest.approx(30 / 80)
        assert scores[f"f1_{matching}_all"] == pytest.approx(2 * 30 / (2 * 30 + 50))
        assert scores[f"f1_{matching}_answered"] == pytest.approx(2 * 30 / (2 * 30 + 30))
        for frames, fn in (("all", 50), ("answered", 30)):
            counts = [scores[f"{value}_{matching}_{frames}"] for value in ("tp", "fp", "fn")]
            assert counts == [30, 0, fn]
    assert scores["f1_published_detected"] == scores["f1_published_answered"]
    assert scores["ap50"] == pytest.approx(30 / 80, abs=0.01)


def test_latencies_sizes_and_stages(config: dict[str, Any], results: Path, root: Path) -> None:
    scores = read(main(config, results, root)).iloc[1]  # every frame of the run is ok
    assert scores["e2e_p50_ms"] == pytest.approx(50 + 19.5)
    assert scores["send_p99_ms"] == pytest.approx(40 + np.percentile(np.arange(40), 99))
    assert scores["wait_ms"] == 4.0
    assert np.isnan(scores["decode_ms"])
    assert scores["dnns_used"] == 3
    assert scores["px_mean"] == pytest.approx((128 + 160 + 192 + 128) / 4)
    assert scores["px_trace_rho"] == pytest.approx(1.0)
    assert scores["bytes_up_mean"] == 1000


def test_a_cell_pools_the_frames_of_its_runs(
    config: dict[str, Any], results: Path, root: Path
) -> None:
    by_cell = read(main(config, results, root).with_name("scores_by_cell.parquet"))
    assert list(by_cell["cell"]) == [cell.name for cell in cells(config)]
    assert list(by_cell["frames"]) == [80, 160]
    assert by_cell["miss_rate"].tolist() == pytest.approx([10 / 80] * 2)
    assert by_cell["recall_strict_all"].tolist() == pytest.approx([70 / 160] * 2)
    assert set(by_cell["clip"]) == {"all"}


def test_what_disturbed_runs_is_in_their_rows(
    config: dict[str, Any], results: Path, root: Path
) -> None:
    columns = ["cpu_others", "cpu_stolen", "disturbed"]
    assert read(main(config, results, root))[columns].isna().all(axis=None)
    first, second = runs(config, cells(config)[0])
    record(results / "runs" / first.key, Told(Disturbance(0.01, 0.02, 0.1)))
    record(results / "runs" / second.key, Told(Disturbance(0.04, 0.015, 0.1), True))
    path = main(config, results, root)
    found = read(path)[columns]
    assert found.iloc[:2].to_numpy().tolist() == [[0.01, 0.02, 0], [0.04, 0.015, 1]]
    assert found.iloc[2:].isna().all(axis=None)
    by_cell = read(path.with_name("scores_by_cell.parquet"))[columns]
    assert by_cell.iloc[0].tolist() == [0.04, 0.02, 1]


def test_a_run_where_nothing_came_back(config: dict[str, Any], results: Path, root: Path) -> None:
    run = runs(config, cells(config)[0])[0]
    lost = [row(0, k, Outcome.LOST) for k in range(40)]
    write_run(results / "runs" / run.key, lost, {})
    scores = read(main(config, results, root)).iloc[0]
    assert scores["miss_rate"] == 1.0
    assert (scores["f1_strict_all"], scores["ap"]) == (0.0, 0.0)
    assert np.isnan(scores["f1_strict_answered"])
    assert np.isnan(scores["e2e_p99_ms"])


def test_only_the_scored_classes_count(config: dict[str, Any], results: Path, root: Path) -> None:
    config["scoring"]["classes"] = ["car"]
    cars = {k: boxes(1, CAR) for k in range(CLIP_FRAMES)}
    write_reference(results / "detections" / detections_key(config, "a") / "640.npz", cars)
    scores = read(main(config, results, root)).iloc[0]
    assert scores["recall_strict_all"] == 0.0
    config["scoring"]["classes"] = ["unicorn"]
    with pytest.raises(ConfigError, match=r"scoring\.classes: the zoo has no class 'unicorn'"):
        main(config, results, root)


def test_files_that_do_not_fit_are_named(config: dict[str, Any], results: Path, root: Path) -> None:
    folder = results / "runs" / runs(config, cells(config)[0])[0].key
    good = [row(0, k, Outcome.OK) for k in range(4)]
    write_run(folder, good, {image_id(1, 0): boxes(1)})
    with pytest.raises(DataError, match=r"detections\.json has image 1000000, which no frame has"):
        main(config, results, root)
    good[0].clip_frame = CLIP_FRAMES
    write_run(folder, good, {})
    with pytest.raises(DataError, match=r"frames\.parquet has a clip_frame beyond the 20"):
        main(config, results, root)
    write_run(folder, [], {})
    with pytest.raises(DataError, match=r"frames\.parquet has no rows"):
        main(config, results, root)
    (folder / "frames.parquet").unlink()
    with pytest.raises(DataError, match=r"frames\.parquet is missing"):
        main(config, results, root)


def test_the_table_that_people_read(config: dict[str, Any], results: Path, root: Path) -> None:
    by_cell = main(config, results, root).with_name("scores_by_cell.parquet")
    markdown, html = tables.main(by_cell)
    lines = markdown.read_text().splitlines()
    assert lines[0].startswith("world: measured, latencies: cpu: onnxruntime, workers: 1")
    assert len([line for line in lines if line.startswith("|")]) == 2 + 2
    assert "| 12.5 % |" in lines[-1]
    assert "| 2_var_var | var | var | 160 |" in lines[-1]
    assert html.read_text().count("<tr>") == 3
