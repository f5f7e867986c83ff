"""The jobs of a run: what its server and each of its clients are told, as JSON files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.cores import Cores
from experiment.grid import Config, Run, is_emulated, pick
from experiment.paths import (
    ROOT,
    asset_path,
    clip_path,
    detections_path,
    needed,
    onnx_path,
    profile_folder,
    zoo_of,
)
from jellyfish.files.traces import trace_from_config
from jellyfish.trace import Trace

SERVER_JOB = "server.job.json"


@dataclass(frozen=True)
class Start:
    """When a client starts, in s after the run's start, and at which step of the trace."""

    after_s: float
    step: int


def starts(config: Config, run: Run, trace: Trace | None) -> list[Start]:
    """Return each client's start: one after another, at a random step of the trace, seeded."""
    rng = random.Random(run.seed)
    low, high = map(float, config["client"]["start_gap_s"])
    found: list[Start] = []
    after_s = 0.0
    for i in range(len(run.cell.clients)):
        gap_s, step = rng.uniform(low, high), rng.randrange(len(trace.mbps) if trace else 1)
        after_s += gap_s if i else 0.0
        found.append(Start(after_s, step))
    return found


def server_job(
    config: Config, run: Run, folder: Path, cores: Cores, results: Path, root: Path = ROOT
) -> dict[str, Any]:
    """Return what the server of a run is told (see `server.config`).

    Raises:
        DataError: model or profile are missing.
        ConfigError: the config names an unknown device or asset.
    """
    device = dict(pick(config, "devices", run.cell.device))
    profile = profile_folder(config, run.cell.device, results) / "profile.json"
    return {
        "host": "127.0.0.1",
        "port": 0,
        "zoo": str((root / str(config["zoo"])).resolve()),
        "profile": str(needed(profile).resolve()),
        "model": _model(config, run, results, root),
        "devices": [{**device, "cores": list(own)} for own in cores.workers],
        "policy": run.cell.policy,
        "seed": run.seed,
        "plan_interval_s": config["server"]["plan_interval_s"],
        "cached_dnns": config["server"]["cached_dnns"],
        "wire_ms": config["network"]["wire_ms"],
        "out_dir": str(folder.resolve()),
    }


def _model(config: Config, run: Run, results: Path, root: Path) -> dict[str, Any]:
    """Return the files that the run's devices need: weights, or what stands in for them."""
    zoo = zoo_of(config, root)
    if not is_emulated(config, run.cell.device):
        weights = asset_path(config, zoo.weights, results, root)
        return {
            "onnx": str(needed(onnx_path(config, results)).resolve()),
            "weights": str(needed(weights).resolve()),
        }
    latencies = profile_folder(config, run.cell.device, results) / "emulation.json"
    found = {px: detections_path(config, run.clip, px, results) for px in zoo.input_px}
    return {
        "emulation": str(needed(latencies).resolve()),
        "detections": {
            run.clip: {str(px): str(needed(path).resolve()) for px, path in found.items()}
        },
    }


def client_jobs(
    config: Config, run: Run, folder: Path, port: int, results: Path, root: Path = ROOT
) -> list[dict[str, Any]]:
    """Return what each client of a run is told (see `client.job.Job`).

    Raises:
        DataError: the clip is missing.
        ConfigError: the config's trace cannot be used.
    """
    trace = trace_from_config(run.cell.trace, pick(config, "traces", run.cell.trace), root)
    clip = needed(clip_path(config, run.clip, results)).resolve()
    shared = {
        "server": f"127.0.0.1:{port}",
        "stream_s": config["client"]["stream_s"],
        "clip": {"name": run.clip, "path": str(clip)},
        "delay_ms": config["network"]["delay_ms"],
        "wire_ms": config["network"]["wire_ms"],
        "in_flight_limit": config["client"]["in_flight_limit"],
        "policy": run.cell.policy,
        "out_dir": str(folder.resolve()),
    }
    return [
        {
            **shared,
            "name": f"client-{i}",
            "client": i,
            "fps": client.fps,
            "slo_ms": client.slo_ms,
            "start_after_s": start.after_s,
            "trace": _shifted(trace, start.step),
            "seed": run.seed + i,
        }
        for i, (client, start) in enumerate(
            zip(run.cell.clients, starts(config, run, trace), strict=True)
        )
    ]


def _shifted(trace: Trace | None, step: int) -> dict[str, Any] | None:
    if trace is None:
        return None
    begun = trace.shifted(step)
    return {"mbps": list(begun.mbps), "step_s": begun.step_s}
