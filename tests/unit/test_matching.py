from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jellyfish.average_precision import average_precision, labels
from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.detections import coco_entries, image_id, read_coco, write_coco
from jellyfish.matching import Rule, overlaps, published, strict

RULE = Rule(classes=(0, 2), confidence=0.25, iou=0.5)


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Return boxes from (x1, y1, x2, y2, score, class) rows."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        boxes=table[:, :4].astype(np.float32),
        scores=table[:, 4].astype(np.float32),
        classes=table[:, 5].astype(np.int32),
    )


def crowd(rng: np.random.Generator, most: int = 12) -> Detections:
    """Return boxes that often overlap, of classes 0 to 2."""
    n = int(rng.integers(0, most))
    centre, size = rng.choice([0.3, 0.7], (n, 1)), rng.uniform(0.2, 0.3, (n, 2))
    centre = centre + rng.normal(0, 0.02, (n, 2))
    return Detections(
        boxes=np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32),
        scores=np.sort(rng.uniform(0.1, 1, n))[::-1].astype(np.float32),
        classes=rng.integers(0, 3, n).astype(np.int32),
    )


def scene(seed: int, frames: int = 20) -> tuple[list[Detections], list[Detections]]:
    rng = np.random.default_rng(seed)
    return [crowd(rng) for _ in range(frames)], [crowd(rng) for _ in range(frames)]


def by_hand(found: Detections, reference: Detections, rule: Rule) -> tuple[int, int, int]:
    """Published matching, as facts of it are worded: box by box."""
    found, reference = rule.keep(found), rule.keep(reference)
    overlap = overlaps(found.boxes, reference.boxes)
    tp = sum(bool(any(o >= rule.iou for o in row)) for row in overlap)
    fn = sum(not any(o >= rule.iou for o in column) for column in overlap.T)
    return tp, len(found) - tp, fn


def exact(frames: list[Detections], rule: Rule) -> list[dict[str, Any]]:
    """Return COCO entries of what is scored, from image 1 on, not rounded as those on disk are."""
    entries = []
    for image, frame in enumerate(map(rule.keep, frames), 1):
        for entry, box in zip(coco_entries({image: frame}, 1, 1), frame.boxes, strict=True):
            x1, y1, x2, y2 = box.astype(float)
            entries.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    return entries


def by_pycocotools(
    found: list[Detections], reference: list[Detections], rule: Rule
) -> list[tuple[int, int, int]]:
    truth, boxes, results = COCO(), exact(reference, rule), exact(found, rule)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = labels(boxes, range(1, len(found) + 1), rule.classes)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.iouThrs = np.array([rule.iou])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.evaluate()
    counts = np.zeros((len(found), 3), int)
    for image in filter(None, evaluation.evalImgs):
        tp = int((image["dtMatches"] > 0).sum())
        missed = int((image["gtMatches"] == 0).sum())
        counts[image["image_id"] - 1] += (tp, image["dtMatches"].size - tp, missed)
    return [tuple(row) for row in counts.tolist()]


@pytest.mark.parametrize("seed", range(4))
def test_strict_matching_is_that_of_pycocotools(seed: int) -> None:
    found, reference = scene(seed)
    counts = strict(found, reference, RULE)
    ours = list(zip(counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist(), strict=True))
    assert ours == by_pycocotools(found, reference, RULE)
    assert counts.tp.sum() > 10


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_published_matching_box_by_box(seed: int) -> None:
    found, reference = scene(seed, frames=4)
    counts = published(found, reference, RULE)
    ours = list(zip(counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist(), strict=True))
    assert ours == [by_hand(f, r, RULE) for f, r in zip(found, reference, strict=True)]


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_counts_add_up_and_a_frame_counts_the_same_in_any_company(seed: int) -> None:
    found, reference = scene(seed, frames=6)
    both = strict(found, reference, RULE)
    kept = np.array([len(RULE.keep(f)) for f in found]), [len(RULE.keep(r)) for r in reference]
    assert (both.tp + both.fp == kept[0]).all()
    assert (both.tp + both.fn == kept[1]).all()
    loose = published(found, reference, RULE)
    assert (loose.tp >= both.tp).all()
    assert (loose.fn <= both.fn).all()
    for i, (f, r) in enumerate(zip(found, reference, strict=True)):
        alone = strict([f], [r], RULE)
        assert (alone.tp[0], alone.fp[0], alone.fn[0]) == (both.tp[i], both.fp[i], both.fn[i])


def test_more_frames_than_fit_in_one_go() -> None:
    found, reference = scene(3, frames=50)
    once, often = strict(found, reference, RULE), strict(found * 50, reference * 50, RULE)
    assert often.tp.tolist() == once.tp.tolist() * 50
    assert often.f1 == once.f1


def test_strict_is_exclusive_and_per_class_and_published_neither() -> None:
    box = (0.1, 0.1, 0.4, 0.4)
    twice, once = detections((*box, 0.9, 0), (*box, 0.8, 0)), detections((*box, 0.9, 0))
    other = detections((*box, 0.9, 2))
    exclusive, loose = strict([twice], [once], RULE), published([twice], [once], RULE)
    assert (exclusive.tp.tolist(), exclusive.fp.tolist()) == ([1], [1])
    assert (loose.tp.tolist(), loose.fp.tolist()) == ([2], [0])
    assert strict([other], [once], RULE).tp.tolist() == [0]
    assert published([other], [once], RULE).tp.tolist() == [1]


def test_only_scored_classes_and_confident_boxes_count_on_both_sides() -> None:
    box = (0.1, 0.1, 0.4, 0.4)
    found = detections((*box, 0.9, 1), (*box, 0.2, 0))
    reference = detections((*box, 0.9, 1), (*box, 0.25, 0))
    counts = strict([found], [reference], RULE)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([0], [0], [1])


def test_ratios_of_nothing_are_nan_and_of_no_answer_zero() -> None:
    none = Detections.none()
    assert np.isnan(strict([none], [none], RULE).f1)
    assert np.isnan(strict([], [], RULE).f1)
    missed = strict([none], [detections((0.1, 0.1, 0.4, 0.4, 0.9, 0))], RULE)
    assert (missed.f1, missed.recall) == (0.0, 0.0)
    assert np.isnan(missed.precision)


@pytest.mark.parametrize(
    "wrong", [{"classes": ()}, {"confidence": 1.5}, {"iou": -0.1}], ids=lambda w: next(iter(w))
)
def test_a_rule_refuses_what_it_cannot_score(wrong: dict[str, object]) -> None:
    values = {"classes": (0,), "confidence": 0.25, "iou": 0.5} | wrong
    with pytest.raises(ConfigError, match=f"scoring.{next(iter(wrong))}"):
        Rule(**values)  # type: ignore[arg-type]


def test_average_precision_of_perfect_half_and_no_answers() -> None:
    _, reference = scene(5)
    none = [Detections.none()] * len(reference)
    assert average_precision(reference, reference, RULE).ap > 0.99
    assert average_precision(none, reference, RULE).ap == 0.0
    half = average_precision([*reference[:10], *none[10:]], reference, RULE).ap50
    assert 0.2 < half < 0.8
    assert np.isnan(average_precision(reference, none, RULE).ap)


def test_detections_read_back(tmp_path: Path) -> None:
    found, _ = scene(7)
    path = tmp_path / "detections.json"
    write_coco(path, {image_id(3, i): frame for i, frame in enumerate(found)}, 768, 576)
    read = read_coco(path)
    assert set(read) == {3_000_000 + i for i, frame in enumerate(found) if len(frame)}
    for image, frame in read.items():
        written = found[image - 3_000_000]
        np.testing.assert_allclose(frame.boxes, written.boxes, atol=1e-6)
        np.testing.assert_allclose(frame.scores, written.scores, atol=1e-6)
        assert frame.classes.tolist() == written.classes.tolist()


def test_detections_are_coco_results_in_pixels(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    write_coco(path, {1: detections((0.25, 0.5, 0.5, 1.0, 0.5, 0))}, 768, 576)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = labels([], [1], [0])
        truth.createIndex()
        (entry,) = truth.loadRes(str(path)).dataset["annotations"]
    assert entry["bbox"] == [192.0, 288.0, 192.0, 288.0]
    assert (entry["category_id"], entry["score"]) == (1, 0.5)


ENTRY = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1, "width": 4, "height": 4}


@pytest.mark.parametrize(
    "broken",
    [{}, [{}], [1], [None], [ENTRY | {"bbox": [1, 2, 3]}], [ENTRY | {"width": 0}]]
    + [[{k: v for k, v in ENTRY.items() if k != key}] for key in ENTRY],
)
def test_a_broken_file_is_named(tmp_path: Path, broken: object) -> None:
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"detections\.json"):
        read_coco(path)
