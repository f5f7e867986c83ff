"""From raw heads to detections: boxes, confidence, non-maximum suppression.

YOLOv3 (Redmon and Farhadi, 2018), section 2.1; grid sensitivity as in YOLOv4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from jellyfish.detections import Detections
from server.zoo.cfg import Head

MAX_LOG_SIZE = 10.0  # 22,000 anchors wide: what lies beyond would only overflow

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class _Candidates:
    """Boxes above the confidence, of a whole batch: `image` says whose each is."""

    image: Indices
    boxes: Floats  # (N, 4), x1 y1 x2 y2 as fractions, not clipped
    scores: Floats
    classes: NDArray[np.int32]


def decode(
    raw: Sequence[Floats], heads: Sequence[Head], px: int, confidence: float, nms_iou: float
) -> list[Detections]:
    """Return the detections of each image of a batch, best first.

    A box counts once, for its best class; its score is objectness times class probability.

    Args:
        raw: one a head, (B, A(5+K), h, w), before any sigmoid.
        heads: what the raw heads mean, in the same order.
        px: side of the input, in pixels.
        confidence: a score must exceed this.
        nms_iou: of two boxes of one class that overlap by more than this, the better one stays.
    """
    found = [
        _candidates(values, head, px, confidence) for values, head in zip(raw, heads, strict=True)
    ]
    image = np.concatenate([c.image for c in found])
    boxes = np.concatenate([c.boxes for c in found])
    scores = np.concatenate([c.scores for c in found])
    classes = np.concatenate([c.classes for c in found])
    answers = []
    for b in range(len(raw[0])):
        mine = np.flatnonzero(image == b)
        keep = mine[_suppress(boxes[mine], scores[mine], classes[mine], nms_iou)]
        answers.append(
            Detections(
                boxes=np.clip(boxes[keep], 0.0, 1.0), scores=scores[keep], classes=classes[keep]
            )
        )
    return answers


def _candidates(raw: Floats, head: Head, px: int, confidence: float) -> _Candidates:
    batch, _, height, width = raw.shape
    values = raw.reshape(batch, len(head.anchors), 5 + head.classes, height, width)
    # A score is at most the objectness: nearly every cell is out before anything is computed.
    b, a, y, x = np.nonzero(values[:, :, 4] > _logit(confidence))
    rows = values[b, a, :, y, x]  # (N, 5 + K)
    classes = rows[:, 5:].argmax(axis=1)
    best = rows[np.arange(len(rows)), 5 + classes]
    scores = _sigmoid(rows[:, 4]) * _sigmoid(best)
    keep = scores > confidence
    b, a, y, x, rows = b[keep], a[keep], y[keep], x[keep], rows[keep]
    cell = np.stack([x, y], axis=1)
    offset = _sigmoid(rows[:, :2]) * head.scale_xy - (head.scale_xy - 1) / 2
    centre = (cell + offset) / (width, height)
    half = np.exp(np.minimum(rows[:, 2:4], MAX_LOG_SIZE)) * np.asarray(head.anchors)[a] / (2 * px)
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    return _Candidates(b, boxes, scores[keep], classes[keep].astype(np.int32))


def _suppress(boxes: Floats, scores: Floats, classes: NDArray[np.int32], nms_iou: float) -> Indices:
    """Return the rows that survive, class by class, highest score first."""
    if not len(scores):
        return np.zeros(0, np.intp)
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    found = cv2.dnn.NMSBoxesBatched(
        sized.tolist(),
        scores.tolist(),
        classes.tolist(),
        score_threshold=0.0,
        nms_threshold=nms_iou,
    )
    kept = np.array(found, np.intp)
    return kept[np.argsort(-scores[kept], kind="stable")]


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the 0 that is right
        return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float32)


def _logit(p: float) -> float:
    return float(np.log(p / (1.0 - p)))
