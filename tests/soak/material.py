"""What a soak serves: a small network of random weights, its profile, and frames that are JPEGs.

One GPU is emulated and the other one runs the network in ONNX Runtime, so that frames are checked
and decoded as in earnest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from client.source import SourceFrame, encode
from experiment.stored_source import StoredSource
from jellyfish.files.atomic import write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.profiles import write_profile
from jellyfish.profile import Profile
from tests.simulated import clip
from tests.zoo_models import MIXED, write_mixed_weights

INPUT_PX = (64, 128, 224)
FRAMES = 40
CLIP = "clip"
CONFIDENCE = 0.9  # random weights find thousands of boxes, which take longer than the network
# By batch size: some four times what the real device takes, for cores that others want, too.
LATENCY_MS = [[a + k * batch for batch in range(1, 5)] for a, k in ((10, 5), (12, 10), (20, 25))]


def frames(px: int) -> list[bytes]:
    """Return the clip's frames as JPEGs: soft noise, which weighs what video does."""
    rng = np.random.default_rng(7)
    side = px // 4
    made = []
    for _ in range(FRAMES):
        small = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        made.append(encode(np.asarray(cv2.resize(small, (px, px)), np.uint8), px))
    return made


class JpegSource(StoredSource):
    """A clip whose frames are JPEGs, coded beforehand."""

    def __init__(self) -> None:
        super().__init__(CLIP, clip(INPUT_PX))
        self._jpegs = {px: frames(px) for px in INPUT_PX}

    def frame(self, k: int, px: int) -> SourceFrame:
        number = k % self.frames
        return SourceFrame(b"%s:%d" % (CLIP.encode(), number), self._jpegs[px][number], number)


def prepare(folder: Path) -> dict[str, Any]:
    """Write all that servers start from; return their jobs, but for where they write."""
    from server.zoo.onnx_export import export  # torch: seconds that others need not spend

    folder.mkdir(parents=True, exist_ok=True)
    export(MIXED.cfg, write_mixed_weights(folder / "mixed.weights"), folder / "model.onnx")
    weights = [sum(map(len, frames(px))) / FRAMES for px in INPUT_PX]
    profile = Profile(
        input_px=INPUT_PX,
        frame_bytes=weights,
        accuracy=[0.4, 0.5, 0.6],
        latency_ms=[[float(ms) for ms in row] for row in LATENCY_MS],
    )
    write_profile(folder / "profile.json", profile)
    emulation = {"kind": "jitter", "latency_ms": LATENCY_MS, "sigma": 0.06, "cap": 1.3}
    write_json(folder / "emulation.json", emulation)
    found = clip(INPUT_PX)
    for px, detections in found.items():
        write_clip_detections(folder / f"{px}.npz", detections)
    zoo = {
        "cfg": str(MIXED.cfg),
        "weights": MIXED.weights,
        "labels": list(MIXED.labels),
        "input_px": list(INPUT_PX),
        "reference_px": INPUT_PX[-1],
        "confidence": CONFIDENCE,
    }
    (folder / "zoo.yaml").write_text(json.dumps(zoo))  # which is YAML, too
    return {
        "zoo": str(folder / "zoo.yaml"),
        "profile": str(folder / "profile.json"),
        "model": {
            "emulation": str(folder / "emulation.json"),
            "detections": {CLIP: {str(px): str(folder / f"{px}.npz") for px in INPUT_PX}},
            "onnx": str(folder / "model.onnx"),
        },
        "devices": [
            {"kind": "emulated", "profile": "synthetic", "max_batch": 4},
            {"kind": "onnxruntime"},
        ],
    }
