"""What was streamed becomes the same files as what was kept in memory."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.session import expected_ticks
from experiment import collect, grid
from jellyfish.files.atomic import read_json
from jellyfish.files.detections import coco_entries, image_id, write_coco
from jellyfish.files.journal import write_each
from jellyfish.files.streams import (
    CLIENTS_LINES,
    DETECTIONS_LINES,
    FRAMES_LINES,
    PLANS_LINES,
    STATE,
    as_record,
    client_jobs,
    server_jobs,
    unmade,
)
from jellyfish.files.tables import PlanRow, read_table, write_frames, write_plans
from jellyfish.records import FrameRow, Outcome
from tests.boxes import ONE_BOX

ROOT = Path(__file__).resolve().parents[2]
TORN = '{"client": 0, "fra'


def stream(path: Path, records: list[Any], torn: str = "") -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + torn)


def row(k: int, outcome: Outcome = Outcome.OK, client: int = 0) -> FrameRow:
    answered = {"e2e_ms": 31.25, "sent_s": k / 3} if outcome is Outcome.OK else {}
    return FrameRow(client, k, k % 7, 15, 100, k / 15, outcome=outcome, **answered)


def plan(k: int) -> PlanRow:
    return PlanRow(k / 7, "paper", [128, 0], [2, 0], [0, 3], [0, -1], [1e4 / 3, 2.0], 0.5, 0.3, nan)


def test_frames(tmp_path: Path) -> None:
    rows = [row(k, Outcome.OK if k % 3 else Outcome.LOST) for k in range(5000)]
    late = [*rows[1:40], rows[0], *rows[40:]]  # its answer came after others
    stream(tmp_path / FRAMES_LINES.format(2), [as_record(one) for one in late], TORN)
    stream(tmp_path / DETECTIONS_LINES.format(2), [])
    write_each(client_jobs(tmp_path, 2))
    write_frames(tmp_path / "want.parquet", rows)
    made, want = (read_table(tmp_path / f"{name}.parquet") for name in ("client-2.frames", "want"))
    assert made.to_pandas().equals(want.to_pandas())
    assert made.schema.equals(want.schema)
    assert not list(tmp_path.glob("*.jsonl"))


def test_detections(tmp_path: Path) -> None:
    found = {image_id(1, k): ONE_BOX for k in (0, 1, 5)}
    entries = [coco_entries({k: found[k]}, 768, 576) for k in (image_id(1, k) for k in (5, 0, 1))]
    stream(tmp_path / DETECTIONS_LINES.format(1), entries, "[{")
    write_each(unmade(tmp_path))
    write_coco(tmp_path / "want.json", found, 768, 576)
    assert (tmp_path / "client-1.detections.json").read_bytes() == (
        tmp_path / "want.json"
    ).read_bytes()


def test_plans_and_what_became_of_clients(tmp_path: Path) -> None:
    plans = [plan(k) for k in range(5)]
    stream(tmp_path / PLANS_LINES, [as_record(one) for one in plans], TORN)
    gone = [{"name": "a", "client": 1, "ok": 3}, {"name": "a", "client": 0, "ok": 2}]
    stream(tmp_path / CLIENTS_LINES, gone)
    there = [{"name": "b", "client": 2, "ok": 1}, {"name": "a", "client": 1, "ok": 2}]
    state = {"clients": there, "plans": 5, "worker_restarts": [0]}  # before client 1 had left
    stream(tmp_path / STATE, [state])
    write_each(unmade(tmp_path))
    write_plans(tmp_path / "want.parquet", plans)
    made, want = (read_table(tmp_path / f"{name}.parquet") for name in ("plans", "want"))
    assert made.to_pandas().equals(want.to_pandas())
    assert made.schema.equals(want.schema)
    assert read_json(tmp_path / "server.json") == {
        "clients": {
            "a": {"client": 0, "ok": 2},
            "a#1": {"client": 1, "ok": 3},
            "b": {"client": 2, "ok": 1},
        },
        "plans": 5,
        "worker_restarts": [0],
    }
    assert unmade(tmp_path) == {}


def test_nothing_is_made_anew_of_what_is_not_there(tmp_path: Path) -> None:
    """A file that was made stays, whatever became of another one of the same client."""
    stream(tmp_path / FRAMES_LINES.format(0), [as_record(row(0))])
    stream(tmp_path / DETECTIONS_LINES.format(0), [{"no": "list"}])
    with pytest.raises(Exception, match=r"client-0\.detections\.json cannot be written"):
        write_each(unmade(tmp_path))
    assert len(read_table(tmp_path / "client-0.frames.parquet")) == 1
    assert [path.name for path in unmade(tmp_path)] == ["client-0.detections.json"]
    jobs = server_jobs(tmp_path, {"clients": [], "plans": 0})
    with pytest.raises(Exception, match=r"server\.json cannot be written: .*plans\.parquet"):
        write_each(jobs)


def test_rows_of_a_killed_client_are_kept_and_the_rest_is_filled(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    two = next(c for c in grid.cells(config) if len(c.clients) == 2 and c.world == "measured")
    run = grid.runs(config, two)[0]
    stream(tmp_path / FRAMES_LINES.format(1), [as_record(row(k, client=1)) for k in (0, 2)], TORN)
    collect.keep_rows(config, run, tmp_path, "client-1 was killed")
    rows = read_table(tmp_path / "frames.parquet").to_pandas()
    ticks = [expected_ticks(config["client"]["stream_s"], client.fps) for client in two.clients]
    assert rows.groupby("client").size().tolist() == ticks
    its = rows[rows.client == 1].set_index("frame").sort_index()
    assert its.outcome.tolist() == ["ok", "lost", "ok"] + ["lost"] * (ticks[1] - 3)
    assert its.reason[1] == "the client left no rows: client-1 was killed"
