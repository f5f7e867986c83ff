"""The jobs of a run: what its server and each of its clients are told, as JSON files."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from server.settings import EngineConfig

if TYPE_CHECKING:  # who only wants to know when clients start needs no SSH
    from experiment.places import Place, Placement

SERVER_JOB = "server.job.json"
SILENCE_S = 6.0  # TCP takes three to make up for a network that was away for two


@dataclass(frozen=True)
class Start:
    """When a client starts, and where its trace does.

    Args:
        after_s: after the run's start.
        step: of the trace.
        uplink: the trace from there on; None for no limit.
    """

    after_s: float
    step: int
    uplink: Trace | None


def starts(config: Config, run: Run, trace: Trace | None) -> list[Start]:
    """Return each client's start: one after another, at a random step of the trace, seeded."""
    rng = random.Random(run.seed)
    low, high = map(float, config["client"]["start_gap_s"])
    found: list[Start] = []
    after_s = 0.0
    for i in range(len(run.cell.clients)):
        gap_s, step = rng.uniform(low, high), rng.randrange(len(trace.mbps) if trace else 1)
        after_s += gap_s if i else 0.0
        found.append(Start(after_s, step, trace and trace.shifted(step)))
    return found


def uplinks(config: Config, run: Run, root: Path = ROOT) -> list[Trace | None]:
    """Return each client's uplink: the cell's trace, begun at the client's step; None for no limit.

    Raises:
        ConfigError: the config's trace cannot be used.
    """
    trace = trace_from_config(run.cell.trace, pick(config, "traces", run.cell.trace), root)
    return [start.uplink for start in starts(config, run, trace)]


def server_job(
    config: Config, run: Run, at: Placement, cores: Cores, results: Path, root: Path = ROOT
) -> dict[str, Any]:
    """Return what the server of a run is told (see `server.config`).

    Raises:
        DataError: model or profile are missing.
        ConfigError: the config names an unknown device or asset.
    """
    device = dict(pick(config, "devices", run.cell.device))
    profile = profile_folder(config, run.cell.device, results) / "profile.json"
    return {
        "host": at.listen,
        "port": 0,
        "zoo": at.server.source(Path(str(config["zoo"]))),
        "profile": at.server.file(needed(profile)),
        "model": _model(config, run, at.server, results, root),
        "devices": [{**device, "cores": list(own)} for own in cores.workers],
        "policy": run.cell.policy,
        "seed": run.seed,
        "plan_interval_s": config["server"]["plan_interval_s"],
        "cached_dnns": config["server"]["cached_dnns"],
        "wire_ms": config["network"]["wire_ms"],
        "max_clients_per_peer": EngineConfig.max_clients,  # they may all live on one host
        "out_dir": str(at.server.folder),
    }


def _model(config: Config, run: Run, server: Place, results: Path, root: Path) -> dict[str, Any]:
    """Return the files that the run's devices need: weights, or what stands in for them."""
    zoo = zoo_of(config, root)
    if not is_emulated(config, run.cell.device):
        weights = asset_path(config, zoo.weights, results, root)
        return {
            "onnx": server.file(needed(onnx_path(config, results))),
            "weights": server.file(needed(weights)),
        }
    latencies = profile_folder(config, run.cell.device, results) / "emulation.json"
    found = {px: detections_path(config, run.clip, px, results) for px in zoo.input_px}
    return {
        "emulation": server.file(needed(latencies)),
        "detections": {
            run.clip: {str(px): server.file(needed(path)) for px, path in found.items()}
        },
    }


def client_jobs(
    config: Config, run: Run, at: Placement, port: int, results: Path, root: Path = ROOT
) -> list[dict[str, Any]]:
    """Return what each client of a run is told (see `client.job.Job`).

    Raises:
        DataError: the clip is missing.
        ConfigError: the config's trace cannot be used.
    """
    trace = trace_from_config(run.cell.trace, pick(config, "traces", run.cell.trace), root)
    clip = needed(clip_path(config, run.clip, results))
    shared = {
        "server": f"{at.address}:{port}",
        "stream_s": config["client"]["stream_s"],
        "delay_ms": config["network"]["delay_ms"],
        "wire_ms": config["network"]["wire_ms"],
        "in_flight_limit": config["client"]["in_flight_limit"],
        "policy": run.cell.policy,
        "give_up_s": 0,  # a run in which a connection was lost measured something else
        **({} if at.local else {"silence_s": SILENCE_S}),
    }
    return [
        {
            **shared,
            **_lives(at, i, run.clip, clip),
            "name": f"client-{i}",
            "client": i,
            "fps": client.fps,
            "slo_ms": client.slo_ms,
            "start_after_s": start.after_s,
            "trace": _rates(start.uplink),
            "seed": run.seed + i,
        }
        for i, (client, start) in enumerate(
            zip(run.cell.clients, starts(config, run, trace), strict=True)
        )
    ]


def _lives(at: Placement, client: int, clip: str, path: Path) -> dict[str, Any]:
    """Return the part of a client's job that depends on where it lives."""
    place, ports = at.of_client(client), at.shaper_of(client).source_ports(client)
    return {
        "clip": {"name": clip, "path": place.file(path)},
        "out_dir": str(place.folder),
        **({"source_ports": list(ports)} if ports else {}),
    }


def _rates(uplink: Trace | None) -> dict[str, Any] | None:
    return {"mbps": list(uplink.mbps), "step_s": uplink.step_s} if uplink else None
