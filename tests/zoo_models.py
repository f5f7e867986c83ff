"""The two zoos that tests serve: the real one, and one of random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from jellyfish.files.zoo import ZooSpec, read_zoo
from server.worker import WorkerFrame

ROOT = Path(__file__).resolve().parents[1]
YOLO = read_zoo(ROOT / "config" / "zoo" / "yolov3-tiny.yaml")
MIXED = read_zoo(ROOT / "tests" / "data" / "zoo" / "mixed.yaml")

# Channels in, filters, size and batch norm of each convolution of mixed.cfg.
MIXED_CONVOLUTIONS = (
    (3, 8, 3, True),
    (8, 16, 3, True),
    (8, 8, 3, True),
    (24, 12, 1, True),
    (24, 16, 1, False),
    (20, 8, 1, False),
)


def yolo_weights(assets: Path) -> Path:
    """Return the real weights."""
    return assets / "weights" / "yolov3-tiny.weights"


def write_mixed_weights(path: Path, seed: int = 0) -> Path:
    """Write random weights for `MIXED`; return `path`."""
    rng = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    for channels, filters, size, norm in MIXED_CONVOLUTIONS:
        parts.append(rng.normal(0, 0.5, filters))  # bias, or beta
        if norm:
            parts += [rng.uniform(0.5, 1.5, filters), rng.normal(0, 0.5, filters)]
            parts.append(rng.uniform(0.2, 2.0, filters))
        parts.append(rng.normal(0, 1, filters * channels * size**2) / np.sqrt(channels * size**2))
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    path.write_bytes(header + np.concatenate(parts).astype("<f4").tobytes())
    return path


def video_frames(assets: Path, count: int) -> list[np.ndarray]:
    """Return every 50th frame of the real video, BGR."""
    video = cv2.VideoCapture(str(assets / "videos" / "vtest.avi"))
    frames = []
    for _ in range(count):
        frames.append(video.read()[1])
        for _ in range(49):
            video.grab()
    return frames


def jpegs(frames: Sequence[np.ndarray], px: int) -> list[WorkerFrame]:
    """Return frames as a client sends them."""
    encoded = (
        cv2.imencode(".jpg", cv2.resize(f, (px, px)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        for f in frames
    )
    return [WorkerFrame(b"%d" % i, e.tobytes(), px) for i, e in enumerate(encoded)]


def sizes(zoo: ZooSpec, *px: int) -> list[int]:
    """Return the DNNs that take these input sizes."""
    return [zoo.input_px.index(p) for p in px]
