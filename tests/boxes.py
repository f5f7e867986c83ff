"""Detections that tests hand around."""

from __future__ import annotations

import numpy as np

from jellyfish.detections import Detections

ONE_BOX = Detections(
    boxes=np.array([[0.1, 0.2, 0.3, 0.4]], np.float32),
    scores=np.array([0.9], np.float32),
    classes=np.array([0], np.int32),
)
