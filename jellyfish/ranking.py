"""Average precision over many frames that show few different answers: each is matched once.

A looped clip and stored detections give the same answers again and again. So matches are made an
answer, and accumulated with how often each was given. The numbers are those of pycocotools over
every single frame, to the last bit, ties between scores included; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jellyfish.average_precision import PX, AveragePrecision
from jellyfish.detections import Detections
from jellyfish.matching import Packed, Rule, assigned, chunks, pack

IntArray = NDArray[np.int64]
MOST = 100  # boxes an answer and class that count, as pycocotools' maxDets
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The D boxes of one class in A answers, and how many there are to be found.

    Highest score first; among equal scores by answer, in an answer in their order.

    Args:
        answers: (D,) which answer each is of.
        scores: (D,) as pycocotools reads them from a file: of six decimals.
        hits: (T, D) whether it is right, at each of THRESHOLDS.
        wanted: (A,) reference boxes.
    """

    answers: IntArray
    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    wanted: IntArray

    @classmethod
    def joined(cls, parts: Sequence[Ranked]) -> Ranked:
        """Return the boxes of all `parts`, whose answers are numbered one part after another."""
        first = np.cumsum([0, *(len(part.wanted) for part in parts)])
        answers = np.concatenate([p.answers + f for p, f in zip(parts, first, strict=False)])
        scores = np.concatenate([part.scores for part in parts])
        order = np.argsort(-scores, kind="stable")
        return cls(
            answers=answers[order],
            scores=scores[order],
            hits=np.concatenate([part.hits for part in parts], axis=1)[:, order],
            wanted=np.concatenate([part.wanted for part in parts]),
        )

    def precision(self, rows: IntArray, times: IntArray) -> NDArray[np.float64] | None:
        """Return (T, R) precision at each of THRESHOLDS and RECALLS; None if nothing is wanted.

        Args:
            rows: (F,) which answer each frame got.
            times: (A,) how many frames got each answer.
        """
        wanted = int(self.wanted @ times)
        if not wanted:
            return None
        boxes, weights = self._sequence(rows, times)
        hits = self.hits[:, boxes]
        tp = np.cumsum(hits * weights, axis=1).astype(np.float64)
        fp = np.cumsum(~hits * weights, axis=1).astype(np.float64)
        precision = tp / (fp + tp + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        found = np.zeros((len(THRESHOLDS), len(RECALLS)))
        for t, recall in enumerate(tp / wanted):
            at = np.searchsorted(recall, RECALLS, side="left")
            reached = at < len(boxes)
            found[t, reached] = best[t, at[reached]]
        return found

    def _sequence(self, rows: IntArray, times: IntArray) -> tuple[IntArray, IntArray]:
        """Return boxes in the order in which pycocotools ranks those of all frames; and weights.

        Boxes of equal score stand in the order of frames. Where all of them are right, or all are
        wrong, their order decides nothing, and each stands once, with its weight; the others stand
        once a frame. (Precision is read at the first box that reaches a recall, and up to the last
        of a weighted box it only rises, if it is right, or falls, if not.)
        """
        given = np.flatnonzero(times[self.answers])
        tied = _ties(self.scores[given], self.hits[:, given])
        once, often = given[~tied], given[tied]
        each, frames = _spread(self.answers[often], rows, times)
        boxes = np.concatenate([once, often[each]])
        frame = np.concatenate([np.zeros(len(once), np.int64), frames])
        weights = np.concatenate([times[self.answers[once]], np.ones(len(each), np.int64)])
        order = np.lexsort((boxes, frame, -self.scores[boxes]))
        return boxes[order], weights[order]


def _ties(scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (D,) whether a box shares its score with one that is right where it is not."""
    if not len(scores):
        return np.zeros(0, bool)
    starts = np.flatnonzero(np.diff(scores, prepend=np.inf))
    lengths = np.diff(starts, append=len(scores))
    right = np.add.reduceat(hits.astype(np.int64), starts, axis=1)
    mixed = ((right > 0) & (right < lengths)).any(axis=0)
    return np.repeat(mixed, lengths)


def _spread(answers: IntArray, rows: IntArray, times: IntArray) -> tuple[IntArray, IntArray]:
    """Return, for every frame that got one of `answers`, which of them, and the frame."""
    by_answer = np.argsort(rows, kind="stable")
    first = (np.cumsum(times) - times)[answers]
    counts = times[answers]
    each = np.repeat(np.arange(len(answers)), counts)
    step = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts)
    return each, by_answer[first[each] + step]


@dataclass(frozen=True, eq=False)
class Ranking:
    """A answers, matched with the reference, class by class."""

    classes: tuple[Ranked, ...]

    @classmethod
    def of(
        cls, found: Sequence[Detections], reference: Sequence[Detections], rule: Rule
    ) -> Ranking:
        """Match `found` with `reference`, A answers each, in the same order.

        Reference boxes below `rule.confidence` do not count; found boxes of any score do.
        """
        every = replace(rule, confidence=0.0)
        matched = [
            _matched(pack(found[part], every), pack(reference[part], rule), sorted(rule.classes))
            for part in chunks(len(found))
        ]
        return cls(tuple(Ranked.joined(parts) for parts in zip(*matched, strict=True)))

    @classmethod
    def joined(cls, parts: Sequence[Ranking]) -> Ranking:
        """Return the answers of all `parts`, numbered one part after another."""
        by_class = zip(*(part.classes for part in parts), strict=True)
        return cls(tuple(Ranked.joined(ranked) for ranked in by_class))

    def average_precision(self, rows: IntArray) -> AveragePrecision:
        """Return the average precision over F frames that got the answers `rows` (F,)."""
        found = []
        for ranked in self.classes:
            times = np.bincount(rows, minlength=len(ranked.wanted))
            precision = ranked.precision(rows, times)
            if precision is not None:
                found.append(precision)
        return AveragePrecision.mean_of(np.stack(found, axis=-1) if found else np.zeros((1, 0)))


def _matched(found: Packed, reference: Packed, classes: Sequence[int]) -> list[Ranked]:
    """Return what `found` is worth, class by class."""
    hits = assigned(_overlaps(found, reference), found, reference, THRESHOLDS)
    return [_of_class(found, reference, hits, label) for label in classes]


def _of_class(found: Packed, reference: Packed, hits: NDArray[np.bool_], label: int) -> Ranked:
    mine = found.classes == label
    mine &= np.cumsum(mine, axis=1) <= MOST
    scores = np.round(found.scores[mine].astype(np.float64), 6)
    order = np.argsort(-scores, kind="stable")
    return Ranked(
        answers=np.nonzero(mine)[0][order],
        scores=scores[order],
        hits=hits[:, mine][:, order],
        wanted=(reference.classes == label).sum(axis=1),
    )


def _overlaps(found: Packed, reference: Packed) -> NDArray[np.float64]:
    """Return the overlaps of boxes as a COCO file has them, by pycocotools' own arithmetic."""
    left, right = _pixels(found)[:, :, None], _pixels(reference)[:, None, :]
    ends = np.minimum(left[..., :2] + left[..., 2:], right[..., :2] + right[..., 2:])
    sides = np.maximum(ends - np.maximum(left[..., :2], right[..., :2]), 0.0)
    shared = sides[..., 0] * sides[..., 1]
    union = left[..., 2] * left[..., 3] + right[..., 2] * right[..., 3] - shared
    overlap: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=overlap, where=shared > 0)
    return overlap


def _pixels(packed: Packed) -> NDArray[np.float64]:
    """Return (F, N, 4) x, y, width and height, rounded as in a file."""
    corners = packed.boxes.astype(np.float64) * PX
    corners[..., 2:] -= corners[..., :2]
    return np.round(corners, 4)
