"""Which detections match the reference: TP, FP and FN per frame, in two ways.

*strict*: per class, one to one, in order of score, each detection taking the free reference box
that it overlaps most, as pycocotools does. *published*: as the paper's evaluation counts (RTSS
2022, section VI): a detection is right if it overlaps any reference box of the scored classes,
a reference box is missed if no detection overlaps it; neither per class nor exclusive.

Both work on many frames at once: frames are packed into padded arrays, slot by slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jellyfish.detections import Detections
from jellyfish.errors import ConfigError

IntArray = NDArray[np.int64]
_CHUNK = 1024  # frames packed at a time: bounds the memory of the padded overlap array


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is scored: class indices, lowest score on both sides, and lowest overlap (IoU).

    Raises:
        ConfigError: no classes, or confidence or iou outside 0..1.
    """

    classes: tuple[int, ...]
    confidence: float
    iou: float

    def __post_init__(self) -> None:
        if not self.classes:
            raise ConfigError("scoring.classes is empty: nothing would be scored")
        for name in ("confidence", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"scoring.{name} must lie between 0 and 1")

    @classmethod
    def from_config(cls, scoring: Mapping[str, Any], labels: Sequence[str]) -> Rule:
        """Return the rule of the config's section `scoring` for a zoo with these labels.

        Raises:
            ConfigError: the zoo has no such class, or as above.
        """
        for name in scoring["classes"]:
            if name not in labels:
                raise ConfigError(f"config: scoring.classes: the zoo has no class {name!r}")
        return cls(
            classes=tuple(labels.index(name) for name in scoring["classes"]),
            confidence=float(scoring["confidence"]),
            iou=float(scoring["iou"]),
        )

    def keep(self, found: Detections) -> Detections:
        """Return those of `found` that are scored."""
        return found.where(
            (found.scores >= self.confidence) & np.isin(found.classes, list(self.classes))
        )


@dataclass(frozen=True, eq=False)
class Counts:
    """(F,) true positives, false positives and false negatives of F frames."""

    tp: IntArray
    fp: IntArray
    fn: IntArray

    @classmethod
    def joined(cls, parts: Sequence[Counts]) -> Counts:
        """Return the counts of all frames of `parts`."""
        none = np.zeros(0, np.int64)
        tp, fp, fn = (
            np.concatenate([none, *(getattr(part, name) for part in parts)])
            for name in ("tp", "fp", "fn")
        )
        return cls(tp, fp, fn)

    def where(self, keep: NDArray[np.bool_] | IntArray) -> Counts:
        """Return the counts of frames: those for which `keep` (F,) is true, or of these numbers."""
        return Counts(self.tp[keep], self.fp[keep], self.fn[keep])

    @property
    def precision(self) -> float:
        """TP / (TP + FP), pooled over frames; NaN if nothing was found."""
        return _ratio(self.tp.sum(), self.tp.sum() + self.fp.sum())

    @property
    def recall(self) -> float:
        """TP / (TP + FN), pooled over frames; NaN if there was nothing to find."""
        return _ratio(self.tp.sum(), self.tp.sum() + self.fn.sum())

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), pooled over frames; NaN if all three are 0."""
        double = 2 * self.tp.sum()
        return _ratio(double, double + self.fp.sum() + self.fn.sum())


Matcher = Callable[[Sequence[Detections], Sequence[Detections], Rule], Counts]


def strict(found: Sequence[Detections], reference: Sequence[Detections], rule: Rule) -> Counts:
    """Match frame by frame, per class, one to one, highest score first.

    Args:
        found, reference: F frames each, in the same order.
        rule: what is scored.
    """
    return _chunked(found, reference, rule, _strict)


def published(found: Sequence[Detections], reference: Sequence[Detections], rule: Rule) -> Counts:
    """Match frame by frame as the paper does: any overlap counts, for any scored class.

    Args:
        found, reference: F frames each, in the same order.
        rule: what is scored.
    """
    return _chunked(found, reference, rule, _published)


MATCHINGS: dict[str, Matcher] = {"strict": strict, "published": published}


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the IoU of every pair: boxes (..., N, 4) and (..., M, 4) give (..., N, M)."""
    left, right = a.astype(np.float64)[..., :, None, :], b.astype(np.float64)[..., None, :, :]
    sides = np.minimum(left[..., 2:], right[..., 2:]) - np.maximum(left[..., :2], right[..., :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=-1)
    union = _area(left) + _area(right) - shared
    out: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=out, where=union > 0)
    return out


@dataclass(frozen=True, eq=False)
class Packed:
    """The N boxes, or fewer, of each of F frames, and what of them is padding.

    Args:
        boxes: (F, N, 4) as in `Detections`.
        scores: (F, N), 0 in the padding.
        classes: (F, N), -1 in the padding.
        there: (F, N) whether there is such a box.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]
    there: NDArray[np.bool_]


def pack(frames: Sequence[Detections], rule: Rule) -> Packed:
    """Return those boxes of `frames` that are scored, frame by frame."""
    sizes = np.array([len(frame) for frame in frames], np.int64)
    classes = np.concatenate([frame.classes for frame in frames])
    scores = np.concatenate([frame.scores for frame in frames])
    kept = np.flatnonzero((scores >= rule.confidence) & np.isin(classes, list(rule.classes)))
    owner = np.repeat(np.arange(len(frames)), sizes)[kept]
    counts = np.bincount(owner, minlength=len(frames))
    there = np.arange(counts.max(initial=0)) < counts[:, None]
    packed = Packed(
        boxes=np.zeros((*there.shape, 4), np.float32),
        scores=np.zeros(there.shape, np.float32),
        classes=np.full(there.shape, -1, np.int32),
        there=there,
    )
    packed.boxes[there] = np.concatenate([frame.boxes for frame in frames])[kept]
    packed.scores[there], packed.classes[there] = scores[kept], classes[kept]
    return packed


def chunks(frames: int) -> Iterator[slice]:
    """Yield slices that cover `frames` frames, each small enough to be packed at once."""
    for start, end in pairwise([*range(0, frames, _CHUNK), frames]):
        yield slice(start, end)


def _chunked(
    found: Sequence[Detections],
    reference: Sequence[Detections],
    rule: Rule,
    match: Callable[[Packed, Packed, float], Counts],
) -> Counts:
    if len(found) != len(reference):
        raise ValueError(f"{len(found)} frames found, {len(reference)} in the reference")
    return Counts.joined(
        [
            match(pack(found[part], rule), pack(reference[part], rule), rule.iou)
            for part in chunks(len(found))
        ]
    )


def assigned(
    overlap: NDArray[np.float64],
    found: Packed,
    reference: Packed,
    thresholds: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return (T, F, N) whether a box found has a reference box of its own, at each threshold.

    As pycocotools assigns them: per class, in the order of the boxes found, each taking the free
    box that it overlaps most, the last of equals.

    Args:
        overlap: (F, N, M) of each box found with each of the reference.
        thresholds: (T,) from which on an overlap counts.
    """
    same = found.classes[:, :, None] == reference.classes[:, None, :]
    same &= found.there[:, :, None] & reference.there[:, None, :]
    overlap = np.where(same, overlap, -1.0)[:, :, ::-1]  # argmax takes the first of equals
    frames, slots, references = overlap.shape
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]  # pycocotools' own
    hits = np.zeros((len(thresholds), frames, slots), bool)
    if not references:
        return hits
    taken = np.zeros((len(thresholds), frames, references), bool)
    for slot in range(slots):
        candidates = np.where(taken, -1.0, overlap[:, slot])
        best = candidates.argmax(axis=2)[..., None]
        hit = np.take_along_axis(candidates, best, axis=2)[..., 0] >= least
        hits[:, :, slot] = hit
        at = np.take_along_axis(taken, best, axis=2)
        np.put_along_axis(taken, best, at | hit[..., None], axis=2)
    return hits


def _strict(found: Packed, reference: Packed, iou: float) -> Counts:
    overlap = overlaps(found.boxes, reference.boxes)
    tp = assigned(overlap, found, reference, np.array([iou]))[0].sum(axis=1)
    return Counts(tp, found.there.sum(axis=1) - tp, reference.there.sum(axis=1) - tp)


def _published(found: Packed, reference: Packed, iou: float) -> Counts:
    hits = overlaps(found.boxes, reference.boxes) >= iou
    hits &= found.there[:, :, None] & reference.there[:, None, :]
    tp = hits.any(axis=2).sum(axis=1)
    met = hits.any(axis=1).sum(axis=1)
    return Counts(tp, found.there.sum(axis=1) - tp, reference.there.sum(axis=1) - met)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else float("nan")
