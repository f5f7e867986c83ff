"""Average precision from answers that are matched once: pycocotools' own, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jellyfish.average_precision import AveragePrecision, average_precision
from jellyfish.detections import Detections
from jellyfish.matching import Rule
from jellyfish.ranking import MOST, RECALLS, THRESHOLDS, Ranking

RULE = Rule(classes=(0, 2), confidence=0.25, iou=0.5)


def crowd(rng: np.random.Generator, most: int = 9, digits: int = 6) -> Detections:
    """Return boxes that often overlap, of classes 0 to 2, whose scores are often equal."""
    n = int(rng.integers(0, most))
    centre = rng.choice([0.3, 0.7], (n, 1)) + rng.normal(0, 0.02, (n, 2))
    size = rng.uniform(0.2, 0.3, (n, 2))
    return Detections(
        boxes=np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32),
        scores=np.sort(np.round(rng.uniform(0.1, 1, n), digits))[::-1].astype(np.float32),
        classes=rng.integers(0, 3, n).astype(np.int32),
    )


def same(ours: AveragePrecision, theirs: AveragePrecision) -> bool:
    values = np.array([ours.ap, ours.ap50]), np.array([theirs.ap, theirs.ap50])
    return np.array_equal(*values, equal_nan=True)


@given(
    seed=st.integers(0, 10_000),
    answers=st.integers(1, 6),
    frames=st.integers(1, 40),
    digits=st.sampled_from([1, 2, 6]),
)
@settings(deadline=None, max_examples=60)
def test_the_same_as_every_frame_for_itself(
    seed: int, answers: int, frames: int, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    found, reference = ([crowd(rng, digits=digits) for _ in range(answers)] for _ in range(2))
    rows = rng.integers(0, answers, frames)
    ours = Ranking.of(found, reference, RULE).average_precision(rows)
    theirs = average_precision([found[k] for k in rows], [reference[k] for k in rows], RULE)
    assert same(ours, theirs), (ours, theirs)


@given(seed=st.integers(0, 10_000), digits=st.sampled_from([1, 6]))
@settings(deadline=None, max_examples=20)
def test_answers_of_several_clips(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    found, reference = ([crowd(rng, digits=digits) for _ in range(7)] for _ in range(2))
    parts = [Ranking.of(found[a:b], reference[a:b], RULE) for a, b in ((0, 3), (3, 4), (4, 7))]
    rows = rng.integers(0, 7, 30)
    ours = Ranking.joined(parts).average_precision(rows)
    assert same(ours, Ranking.of(found, reference, RULE).average_precision(rows))


def test_more_answers_than_are_packed_at_once() -> None:
    rng = np.random.default_rng(1)
    found, reference = ([crowd(rng) for _ in range(30)] for _ in range(2))
    rows = rng.integers(0, 30 * 50, 400)
    ours = Ranking.of(found * 50, reference * 50, RULE).average_precision(rows)
    assert same(ours, Ranking.of(found, reference, RULE).average_precision(rows % 30))
    assert 0.01 < ours.ap < ours.ap50 < 1


def test_thresholds_and_limits_are_those_of_pycocotools() -> None:
    params = pytest.importorskip("pycocotools.cocoeval").Params(iouType="bbox")
    assert THRESHOLDS.tolist() == params.iouThrs.tolist()
    assert RECALLS.tolist() == params.recThrs.tolist()
    assert max(params.maxDets) == MOST


def test_no_more_boxes_count_than_with_pycocotools() -> None:
    rng = np.random.default_rng(3)
    boxes = np.tile(np.array([0.1, 0.1, 0.3, 0.3], np.float32), (2 * MOST, 1))
    boxes += np.linspace(0, 0.3, 2 * MOST, dtype=np.float32)[:, None]
    many = Detections(
        boxes, np.linspace(1, 0.3, 2 * MOST, dtype=np.float32), np.zeros(2 * MOST, np.int32)
    )
    reference = many.where(rng.random(2 * MOST) < 0.9)
    rows = np.array([0, 0, 0])
    ours = Ranking.of([many], [reference], RULE).average_precision(rows)
    assert same(ours, average_precision([many] * 3, [reference] * 3, RULE))
    assert ours.ap < 0.7


def test_nothing_found_and_nothing_to_find() -> None:
    none, some = Detections.none(), crowd(np.random.default_rng(5), most=9)
    ranking = Ranking.of([none, some, none], [some, none, none], RULE)
    assert ranking.average_precision(np.array([0])) == AveragePrecision(0.0, 0.0)
    for rows in ([1], [2], [1, 2, 2]):
        assert np.isnan(ranking.average_precision(np.array(rows)).ap)
