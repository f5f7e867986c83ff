"""Simulated runs: scored from stored detections, each answer once, as if frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiment.grid import Cell, ClientSpec, Run, detections_key
from jellyfish.average_precision import average_precision
from jellyfish.detections import Detections
from jellyfish.emulation import EmulatedAnswers
from jellyfish.errors import DataError
from jellyfish.files.clip_detections import ClipDetections, write_clip_detections
from jellyfish.files.tables import write_frames
from jellyfish.matching import MATCHINGS, Rule
from jellyfish.records import FrameRow, Outcome
from scripts.answers import ClipAnswers, StoredDetections
from scripts.score import load_run
from scripts.scored import READ, Scored, trace_rhos, values
from tests.unit.test_ranking import crowd

FRAMES = 6
SIZES = (128, 160, 224)
RULE = Rule(classes=(0, 2), confidence=0.25, iou=0.5)
CELL = Cell("simulated", "gpu", 2, "jellyfish", "none", "1", (ClientSpec(100, 15),), ("a",), 1)
RUN = Run(CELL, "a", 0, "simulated-run", 1)

Clip = dict[int, list[Detections]]


def clip(rng: np.random.Generator, digits: int = 6) -> tuple[Clip, list[Detections]]:
    """Return what each DNN and what the reference found in a clip."""
    by_px = {px: [crowd(rng, digits=digits) for _ in range(FRAMES)] for px in SIZES}
    return by_px, [crowd(rng, digits=digits) for _ in range(FRAMES)]


def rows(rng: np.random.Generator, number: int) -> list[FrameRow]:
    """Return frames of two clients, of which some are answered, some at a smaller size."""
    made = []
    for k in range(number):
        row = FrameRow(k % 2, k // 2, int(rng.integers(FRAMES)), 15, 100, k / 15)
        row.outcome = Outcome(rng.choice([*Outcome]))
        if row.outcome in (Outcome.OK, Outcome.LATE):
            row.px_sent, row.dnn_px = (int(px) for px in rng.choice(SIZES, 2))
            row.e2e_ms = row.send_ms = float(rng.uniform(20, 120))
        made.append(row)
    return made


def table(frames: list[FrameRow]) -> pd.DataFrame:
    return pd.DataFrame([{name: getattr(row, name) for name in READ} for row in frames])


def scored(frames: list[FrameRow], of_clip: ClipAnswers) -> Scored:
    rows = table(frames)
    in_time = (rows["outcome"] == "ok").to_numpy(bool)
    given = of_clip.given(rows, in_time, Path("frames.parquet"))
    return Scored(rows, of_clip.answers, given, trace_rhos(rows))


def plainly(
    frames: list[FrameRow], by_px: Clip, reference: list[Detections]
) -> tuple[list[Detections], list[Detections]]:
    """Return, frame by frame, what came back in time from an emulated device, and the reference."""
    sizes = {
        px: ClipDetections(tuple(found), np.ones(FRAMES, np.int64), 768, 576)
        for px, found in by_px.items()
    }
    device, found = EmulatedAnswers({"a": sizes}), []
    for row in frames:
        ok = row.outcome is Outcome.OK
        tag = f"a:{row.clip_frame}".encode()
        answer = device.answer(tag, row.dnn_px, row.px_sent) if ok else Detections.none()
        assert not isinstance(answer, str), answer
        found.append(answer)
    return found, [reference[row.clip_frame] for row in frames]


@given(seed=st.integers(0, 10_000), number=st.integers(1, 60), digits=st.sampled_from([1, 6]))
@settings(deadline=None, max_examples=40)
def test_each_answer_matched_once_is_as_every_frame_matched(
    seed: int, number: int, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    by_px, reference = clip(rng, digits)
    frames = rows(rng, number)
    ours = values(scored(frames, ClipAnswers(by_px, reference, RULE)))
    found, wanted = plainly(frames, by_px, reference)
    ok = np.array([row.outcome is Outcome.OK for row in frames])
    for name, match in MATCHINGS.items():
        counts = match(found, wanted, RULE)
        for which, part in (("all", counts), ("answered", counts.where(ok))):
            for value in ("f1", "precision", "recall"):
                assert ours[f"{value}_{name}_{which}"] == pytest.approx(
                    getattr(part, value), rel=1e-15, nan_ok=True
                )
            for value in ("tp", "fp", "fn"):
                assert ours[f"{value}_{name}_{which}"] == getattr(part, value).sum()
    ap = average_precision(found, wanted, RULE)
    assert np.array_equal([ours["ap"], ours["ap50"]], [ap.ap, ap.ap50], equal_nan=True)


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_runs_of_two_clips_pooled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = [clip(rng, digits=1) for _ in range(2)]
    of_clips = [ClipAnswers(*one, RULE) for one in clips]
    runs = [(which, rows(rng, 30)) for which in (0, 1, 0)]
    ours = values(Scored.pooled([scored(frames, of_clips[which]) for which, frames in runs]))
    parts = [plainly(frames, *clips[which]) for which, frames in runs]
    found = [answer for part, _ in parts for answer in part]
    wanted = [answer for _, part in parts for answer in part]
    counts = MATCHINGS["strict"](found, wanted, RULE)
    assert ours["tp_strict_all"] == counts.tp.sum()
    assert ours["fn_strict_all"] == counts.fn.sum()
    ap = average_precision(found, wanted, RULE)
    assert np.array_equal([ours["ap"], ours["ap50"]], [ap.ap, ap.ap50], equal_nan=True)


@pytest.fixture
def stored(root: Path, tmp_path: Path) -> StoredDetections:
    """Detections of a clip on disk, of every DNN of the smoke scenario's zoo."""
    config: dict[str, Any] = {
        "zoo": "config/zoo/yolov3-tiny-smoke.yaml",
        "clips": {"a": {"asset": "vtest", "first": 0, "frames": FRAMES}},
    }
    rng, folder = np.random.default_rng(1), tmp_path / "detections" / detections_key(config, "a")
    found = StoredDetections(config, tmp_path, root, RULE)
    for px in (*found.zoo.input_px, found.zoo.reference_px):
        frames = tuple(crowd(rng) for _ in range(FRAMES))
        write_clip_detections(
            folder / f"{px}.npz", ClipDetections(frames, np.ones(FRAMES, np.int64), 768, 576)
        )
    return found


def test_a_run_without_detections_is_scored_from_the_stored_ones(
    stored: StoredDetections, tmp_path: Path
) -> None:
    frames = rows(np.random.default_rng(2), 40)
    for row in frames:
        row.px_sent = row.dnn_px = stored.zoo.input_px[0]
    write_frames(tmp_path / "frames.parquet", frames)
    run = load_run(RUN, tmp_path, stored)
    assert len(run.answers) == FRAMES * (len(stored.zoo.input_px) + 1)
    assert values(run)["tp_strict_all"] > 0


def test_what_does_not_fit_is_named(stored: StoredDetections, tmp_path: Path) -> None:
    frames = rows(np.random.default_rng(2), 4)
    frames[0].outcome, frames[0].dnn_px = Outcome.OK, -1
    write_frames(tmp_path / "frames.parquet", frames)
    with pytest.raises(DataError, match=r"frames\.parquet has a frame that was answered"):
        load_run(RUN, tmp_path, stored)
    fresh = StoredDetections(stored.config, tmp_path, stored.root, RULE)
    path = fresh.path("a", stored.zoo.input_px[0])
    write_clip_detections(path, ClipDetections((Detections.none(),), np.ones(1, int), 768, 576))
    with pytest.raises(DataError, match=rf"{path.name} has 1 frames, the reference {FRAMES}"):
        load_run(RUN, tmp_path, fresh)
