"""Average precision by pycocotools, against reference detections or against labels.

For many frames with few different answers, `jellyfish.ranking` gives the same in far less time.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jellyfish.detections import Detections
from jellyfish.files.detections import coco_entries
from jellyfish.matching import Rule

# Fractions are scored as pixels of this square. Only pycocotools' area ranges depend on it, and
# of those only `all` is used.
PX = 1000


@dataclass(frozen=True)
class AveragePrecision:
    """AP over IoU .50 to .95 and at IoU .50, mean over classes; NaN without reference boxes."""

    ap: float
    ap50: float

    @classmethod
    def mean_of(cls, precision: NDArray[np.float64]) -> AveragePrecision:
        """Return the means of `precision` (IoU, ...); -1 stands for a class without labels."""
        return cls(_mean(precision), _mean(precision[0]))


def average_precision(
    found: Sequence[Detections], reference: Sequence[Detections], rule: Rule
) -> AveragePrecision:
    """Score `found` against a reference DNN's detections of the same F frames.

    Reference boxes below `rule.confidence` do not count; found boxes of any score do, since AP
    ranks them.

    Args:
        found, reference: F frames each, in the same order; a frame without an answer is empty.
        rule: classes and the reference's confidence.
    """
    every = Rule(classes=rule.classes, confidence=0.0, iou=rule.iou)
    truth = [
        label
        for image, frame in enumerate(reference, 1)
        for label in coco_entries({image: rule.keep(frame)}, PX, PX)
    ]
    results = coco_entries({i: every.keep(f) for i, f in enumerate(found, 1)}, PX, PX)
    return against_labels(results, labels(truth, range(1, len(reference) + 1), rule.classes))


def labels(
    boxes: Sequence[Mapping[str, Any]], images: Collection[int], classes: Collection[int]
) -> dict[str, Any]:
    """Return a COCO data set of `boxes` (image_id, category_id, bbox) as ground truth."""
    annotations = [
        {
            "id": i,  # from 1: pycocotools takes 0 for "not matched"
            "image_id": box["image_id"],
            "category_id": box["category_id"],
            "bbox": list(box["bbox"]),
            "area": box["bbox"][2] * box["bbox"][3],
            "iscrowd": 0,
        }
        for i, box in enumerate(boxes, 1)
    ]
    return {
        "info": {},
        "images": [{"id": image} for image in images],
        "categories": [{"id": label + 1} for label in sorted(classes)],
        "annotations": annotations,
    }


def against_labels(
    results: Sequence[Mapping[str, Any]], dataset: Mapping[str, Any]
) -> AveragePrecision:
    """Score COCO results against a COCO data set, over the data set's categories.

    Args:
        results: entries as `jellyfish.files.detections.coco_entries` makes them.
        dataset: images, categories and annotations, each as COCO defines it.
    """
    if not dataset["annotations"]:
        return AveragePrecision(float("nan"), float("nan"))
    if not results:
        return AveragePrecision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        truth = COCO()
        truth.dataset = dict(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(entry) for entry in results]), "bbox")
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    return AveragePrecision.mean_of(precision)


def _mean(precision: NDArray[np.float64]) -> float:
    scored = precision[precision > -1]  # -1: a class without labels
    return float(np.mean(scored)) if scored.size else float("nan")
