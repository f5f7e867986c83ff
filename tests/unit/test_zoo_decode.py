"""Head decode and suppression, against the formulas written as plain loops."""

import math

import numpy as np
import pytest

from server.zoo.cfg import Head
from server.zoo.decode import decode

HEADS = (
    Head(layer=0, anchors=((10.0, 20.0), (30.0, 15.0)), classes=3, scale_xy=1.1),
    Head(layer=1, anchors=((5.0, 6.0),), classes=3, scale_xy=1.0),
)
PX = 64


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def random_heads(seed: int, batch: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(0, 2, (batch, head.channels, n, n)).astype(np.float32)
        for head, n in zip(HEADS, (2, 4), strict=True)
    ]


def all_boxes(raw: list[np.ndarray], confidence: float) -> list[tuple[float, int, list[float]]]:
    found = []
    for values, head in zip(raw, HEADS, strict=True):
        n = values.shape[-1]
        for a, y, x in np.ndindex(len(head.anchors), n, n):
            row = values[0, a * 8 : (a + 1) * 8, y, x].astype(float)
            kind = int(row[5:].argmax())
            score = sigmoid(row[4]) * sigmoid(row[5 + kind])
            if score <= confidence:
                continue
            cx, cy = (
                (cell + sigmoid(t) * head.scale_xy - (head.scale_xy - 1) / 2) / n
                for cell, t in ((x, row[0]), (y, row[1]))
            )
            w, h = (
                math.exp(t) * side / PX for t, side in zip(row[2:4], head.anchors[a], strict=True)
            )
            found.append((score, kind, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    return sorted(found, key=lambda one: -one[0])


def iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@pytest.mark.parametrize("seed", range(10))
def test_it_is_what_the_formulas_say(seed: int) -> None:
    raw = random_heads(seed)
    want: list[tuple[float, int, list[float]]] = []
    for one in all_boxes(raw, 0.2):
        if all(one[1] != other[1] or iou(one[2], other[2]) <= 0.4 for other in want):
            want.append(one)
    (got,) = decode(raw, HEADS, PX, confidence=0.2, nms_iou=0.4)
    assert len(want) > 3
    assert got.classes.tolist() == [kind for _, kind, _ in want]
    np.testing.assert_allclose(got.scores, [score for score, _, _ in want], rtol=1e-5)
    np.testing.assert_allclose(got.boxes, np.clip([box for _, _, box in want], 0, 1), atol=1e-5)


def test_images_of_a_batch_do_not_mix() -> None:
    raw = random_heads(3, batch=4)
    together = decode(raw, HEADS, PX, 0.2, 0.4)
    for b, got in enumerate(together):
        (alone,) = decode([head[b : b + 1] for head in raw], HEADS, PX, 0.2, 0.4)
        np.testing.assert_array_equal(got.boxes, alone.boxes)
        np.testing.assert_array_equal(got.scores, alone.scores)
        np.testing.assert_array_equal(got.classes, alone.classes)


def test_scores_descend_and_boxes_stay_in_the_frame() -> None:
    (got,) = decode(random_heads(5), HEADS, PX, 0.05, 0.9)
    assert (np.diff(got.scores) <= 0).all()
    assert got.boxes.min() >= 0
    assert got.boxes.max() <= 1


def test_nothing_above_the_confidence_is_no_detection() -> None:
    raw = [np.full((2, head.channels, 2, 2), -9, np.float32) for head in HEADS]
    assert [len(got) for got in decode(raw, HEADS, PX, 0.2, 0.4)] == [0, 0]


def test_extreme_values_overflow_nothing() -> None:
    raw = [np.full((1, head.channels, 2, 2), 500, np.float32) for head in HEADS]
    (got,) = decode(raw, HEADS, PX, 0.2, 0.4)
    assert len(got) > 0
    assert np.isfinite(got.boxes).all()
