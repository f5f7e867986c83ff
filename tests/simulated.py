"""Small made-up scenes for virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiment.virtual_serving import Scene, SceneClient
from jellyfish.detections import Detections
from jellyfish.emulation import LatencyModel
from jellyfish.files.atomic import write_json
from jellyfish.files.clip_detections import ClipDetections, write_clip_detections
from jellyfish.files.profiles import write_profile
from jellyfish.files.zoo import read_zoo
from jellyfish.policy import policy
from jellyfish.profile import Profile
from jellyfish.trace import Trace
from server.devices import DeviceSpec, emulated_spec

ROOT = Path(__file__).resolve().parents[1]
INPUT_PX = (128, 224, 320, 416, 512, 608)
FRAMES, WIDTH, HEIGHT = 40, 768, 576
SYNTHETIC = Trace(name="synthetic", mbps=(20, 15, 10, 7.5, 10, 15, 20), step_s=2.0)


def latency_ms(px: int, batch: int) -> float:
    """Return the synthetic profile's p99 (ours, like a 2080 Ti's)."""
    return 10 + 3 * (px - 128) / 480 + 22 * (px / 608) ** 2 * batch


def emulation(sigma: float = 0.06) -> dict[str, Any]:
    table = [[latency_ms(px, b) for b in range(1, 9)] for px in INPUT_PX]
    return {"kind": "jitter", "latency_ms": table, "sigma": sigma, "cap": 1.3}


def profile() -> Profile:
    return Profile(
        input_px=INPUT_PX,
        frame_bytes=[px * px * 3 / 7 for px in INPUT_PX],
        accuracy=[0.3, 0.42, 0.5, 0.56, 0.6, 0.63],
        latency_ms=emulation()["latency_ms"],
    )


def clip(input_px: Sequence[int] = INPUT_PX) -> dict[int, ClipDetections]:
    rng = Random(7)
    return {px: _clip_at(px, rng) for px in input_px}


def _clip_at(px: int, rng: Random) -> ClipDetections:
    sizes = [round(px * px * 3 / 7 * rng.uniform(0.95, 1.05)) for _ in range(FRAMES)]
    found = tuple(_boxes(1 + (number + px) % 4) for number in range(FRAMES))
    return ClipDetections(found, np.array(sizes, np.int64), WIDTH, HEIGHT)


def _boxes(count: int) -> Detections:
    corner = np.linspace(0.1, 0.5, count, dtype=np.float32)[:, None]
    return Detections(
        boxes=np.concatenate([corner, corner, corner + 0.1, corner + 0.2], axis=1),
        scores=np.linspace(0.9, 0.3, count, dtype=np.float32),
        classes=np.zeros(count, np.int32),
    )


def emulated_device(folder: Path, seed: int, clip_name: str = "clip") -> DeviceSpec:
    """Return the spec of an emulated device whose files are written to `folder`."""
    write_json(folder / "emulation.json", emulation())
    paths = {px: folder / f"{px}.npz" for px in INPUT_PX}
    for px, found in clip().items():
        write_clip_detections(paths[px], found)
    return emulated_spec(
        {"kind": "emulated", "profile": "synthetic", "max_batch": 8},
        read_zoo(ROOT / "config/zoo/yolov3-tiny.yaml"),
        emulation=folder / "emulation.json",
        detections={clip_name: paths},
        seed=seed,
        max_batch=8,
        input_px=INPUT_PX,
    )


def emulated_job(folder: Path, **changes: Any) -> Path:
    """Write the job of a server with an emulated worker and all that it needs; return its path."""
    write_json(folder / "emulation.json", emulation())
    paths = {px: folder / f"{px}.npz" for px in INPUT_PX}
    for px, found in clip().items():
        write_clip_detections(paths[px], found)
    write_profile(folder / "profile.json", profile())
    job = {
        "zoo": str(ROOT / "config/zoo/yolov3-tiny.yaml"),
        "profile": str(folder / "profile.json"),
        "model": {
            "emulation": str(folder / "emulation.json"),
            "detections": {"clip": {str(px): str(path) for px, path in paths.items()}},
        },
        "devices": [{"kind": "emulated", "profile": "synthetic", "max_batch": 8}],
        "out_dir": str(folder),
        **changes,
    }
    write_json(folder / "server.job.json", job)
    return folder / "server.job.json"


def scene(
    clients: int = 2,
    *,
    fps: float = 15,
    slo_ms: float = 100,
    trace: Trace | None = SYNTHETIC,
    gap_s: float = 0.7,
    policy_name: str = "jellyfish",
    **changes: Any,
) -> Scene:
    """Return a scene of equal clients that start `gap_s` apart."""
    values: dict[str, Any] = {
        "clients": tuple(
            SceneClient(
                fps=fps,
                slo_ms=slo_ms,
                start_s=gap_s * i,
                trace=trace.shifted(i) if trace else None,
            )
            for i in range(clients)
        ),
        "clip": "clip",
        "sizes": clip(),
        "profile": profile(),
        "model": LatencyModel.from_dict(emulation()),
        "policy": policy(policy_name),
        "workers": 2,
        "stream_s": 10.0,
    }
    return Scene(**values | changes)


def outcomes(rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    """Return how many rows of all clients had which outcome."""
    found: dict[str, int] = {}
    for client in rows:
        for row in client:
            found[str(row.outcome)] = found.get(str(row.outcome), 0) + 1
    return found
