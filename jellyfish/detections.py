"""Detections of one frame, as the whole system passes them on."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """N boxes found in a frame.

    Args:
        boxes: (N, 4) float32, x1 y1 x2 y2 as fractions of the frame's width and height, so that
            they mean the same at every input size.
        scores: (N,) float32, 0 to 1, highest first.
        classes: (N,) int32, index into the zoo's labels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.classes.shape != (n,):
            raise ValueError(
                f"{n} scores, boxes {self.boxes.shape}, classes {self.classes.shape}: "
                "want (N,), (N, 4), (N,)"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def sensible(self) -> bool:
        """Whether all numbers can be: finite boxes, scores from 0 to 1, classes from 0 on."""
        # As lists: for the few that a frame has, numpy would take five times as long.
        scored = all(0 <= score <= 1 for score in self.scores.tolist())  # false for NaN, too
        known = min(self.classes.tolist(), default=0) >= 0
        return scored and known and isfinite(sum(self.boxes.ravel().tolist()))

    def __reduce__(self) -> Any:
        """Return what a pickle needs, as bytes: numpy's own way takes five times as long."""
        arrays = (self.boxes, np.float32), (self.scores, np.float32), (self.classes, np.int32)
        return _from_bytes, tuple(np.asarray(array, kind).tobytes() for array, kind in arrays)

    @staticmethod
    def none() -> Detections:
        """Return an empty set: always the same one."""
        return _NONE

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
        """Return those rows for which `keep` (N,) is true, or whose numbers it holds, in order."""
        return Detections(
            boxes=self.boxes[keep], scores=self.scores[keep], classes=self.classes[keep]
        )


def _from_bytes(boxes: bytes, scores: bytes, classes: bytes) -> Detections:
    return Detections(
        boxes=np.frombuffer(boxes, np.float32).reshape(-1, 4),
        scores=np.frombuffer(scores, np.float32),
        classes=np.frombuffer(classes, np.int32),
    )


_NONE = _from_bytes(b"", b"", b"")  # and so read-only
