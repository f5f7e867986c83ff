"""One run in virtual time: from the config to the run's directory, as a measured one leaves it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from experiment import provenance
from experiment.charges import charges_of
from experiment.collect import with_run
from experiment.grid import Config, Run, digest, latencies, pick, run_settings, simulation
from experiment.jobs import starts
from experiment.link import LinkConfig
from experiment.paths import ROOT, detections_path, needed, profile_folder, run_folder, zoo_of
from experiment.virtual_serving import Scene, SceneClient, Served, serve
from jellyfish.errors import ConfigError, DataError, JellyfishError, RunError
from jellyfish.files.atomic import write_json
from jellyfish.files.clip_detections import ClipDetections, read_clip_detections
from jellyfish.files.emulation import read_latency_model
from jellyfish.files.profiles import read_profile
from jellyfish.files.provenance import Provenance, is_complete, read_provenance, write_provenance
from jellyfish.files.tables import frames_table, write_plans, write_table
from jellyfish.files.traces import trace_from_config
from jellyfish.policy import policy
from server.settings import EngineConfig


def simulate(config: Config, run: Run, results: Path, root: Path = ROOT) -> Path:
    """Do `run` in virtual time and return its directory, written whole.

    Raises:
        ConfigError: the device is not an emulated one, or a value cannot be used.
        DataError: an input is missing or damaged; the text names it.
        RunError: a client was refused or lost its server.
    """
    started = provenance.now()
    scene = scene_of(config, run, results, root)
    try:
        served = serve(scene)
    except* JellyfishError as failed:
        raise RunError(f"{run.key}: {failed.exceptions[0]}") from failed
    final = run_folder(run.key, results)
    folder = final.with_name(f".{run.key}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(config, run, served, folder)
    write_provenance(folder, _provenance(config, run, started, results, root))
    if final.exists():
        shutil.rmtree(final)
    folder.replace(final)
    return final


def is_current(config: Config, run: Run, results: Path, root: Path = ROOT) -> bool:
    """Whether `run` is there, whole, and made of these values, this profile and this code."""
    folder = run_folder(run.key, results)
    settings = run_settings(config, run.cell, run.clip, run.repetition)
    if not is_complete(folder, digest(settings)):
        return False
    made = read_provenance(folder)
    try:
        digests = _digests(config, run, results, root)
    except DataError:  # the profile is not there any more, or not yet
        return False
    return made.code_digest == code_digest(root) and made.digests == digests


@cache
def code_digest(root: Path = ROOT) -> str:
    """Return the digest of all code that a simulated result depends on."""
    return provenance.code_digest(root, provenance.SIMULATED_CODE)


def scene_of(config: Config, run: Run, results: Path, root: Path = ROOT) -> Scene:
    """Return what `run` depends on, read from where the stages before left it.

    Raises:
        ConfigError, DataError: as `simulate`.
    """
    device = pick(config, "devices", run.cell.device)
    if device["kind"] != "emulated":
        raise ConfigError(f"device {run.cell.device}: only emulated ones can be simulated")
    folder = profile_folder(config, run.cell.device, results)
    profile = read_profile(needed(folder / "profile.json"))
    model = read_latency_model(needed(folder / "emulation.json"))
    lacking = sorted({*zoo_of(config, root).input_px} - {int(px) for px in profile.input_px})
    if lacking:
        named = ", ".join(map(str, lacking))
        raise DataError(f"{folder / 'profile.json'} lacks the zoo's DNN at {named} px")
    if model.dnns < profile.dnns or model.max_batch < profile.max_batch:
        raise DataError(
            f"{folder / 'emulation.json'} has {model.dnns} DNNs and batches of {model.max_batch}, "
            f"the profile beside it {profile.dnns} and {profile.max_batch}"
        )
    costs = simulation(config, run.cell.device)
    charges = charges_of(costs)
    return Scene(
        clients=_clients(config, run, root),
        clip=run.clip,
        sizes=stored_sizes(config, run.clip, [int(px) for px in profile.input_px], results),
        profile=profile,
        model=model,
        policy=policy(run.cell.policy),
        workers=run.cell.workers,
        seed=run.seed,
        stream_s=float(config["client"]["stream_s"]),
        link=LinkConfig(
            delay_ms=float(config["network"]["delay_ms"]),
            downlink_mbps=float(costs["downlink_mbps"]),
            queue_limit_bytes=costs["queue_limit_bytes"],
            transport_ms=charges["transport_ms"],
            answer_ms=charges["answer_ms"],
        ),
        engine=EngineConfig(
            plan_interval_s=float(config["server"]["plan_interval_s"]),
            cached_dnns=int(config["server"]["cached_dnns"]),
            wire_ms=float(config["network"]["wire_ms"]),
        ),
        in_flight_limit=int(config["client"]["in_flight_limit"]),
        device_ms=charges["device_ms"],
        scheduler_ms=charges["scheduler_ms"],
        server_ms=charges["server_ms"],
        hand_over_ms=charges["hand_over_ms"],
    )


def _clients(config: Config, run: Run, root: Path) -> tuple[SceneClient, ...]:
    trace = trace_from_config(run.cell.trace, pick(config, "traces", run.cell.trace), root)
    return tuple(
        SceneClient(
            fps=client.fps,
            slo_ms=client.slo_ms,
            start_s=start.after_s,
            trace=start.uplink,
        )
        for client, start in zip(run.cell.clients, starts(config, run, trace), strict=True)
    )


def stored_sizes(
    config: Config, clip: str, input_px: Sequence[int], results: Path
) -> dict[int, ClipDetections]:
    """Return what the DNNs of `input_px` found in `clip`; each file is read once a process.

    Raises:
        DataError: one is missing or damaged; the text names it.
    """
    paths = {px: needed(detections_path(config, clip, px, results)) for px in input_px}
    return {px: _read_once(path, path.stat().st_mtime_ns) for px, path in paths.items()}


@lru_cache(maxsize=64)
def _read_once(path: Path, changed: int) -> ClipDetections:
    return read_clip_detections(path)


def _write(config: Config, run: Run, served: Served, folder: Path) -> None:
    """Write what a measured run has, but for detections.json: `experiment.stored_answers` does.

    It would be the same detections over and over, and ten times the size of all else together;
    the rows of frames.parquet say which frame of the clip which DNN saw, and at which size.
    """
    table = frames_table(row for rows in served.rows for row in rows)
    write_table(folder / "frames.parquet", with_run(table, config, run))
    write_plans(folder / "plans.parquet", served.plans)
    write_json(folder / "server.json", served.summary)


def _digests(config: Config, run: Run, results: Path, root: Path) -> dict[str, str]:
    folder = profile_folder(config, run.cell.device, results)
    stored = [
        detections_path(config, run.clip, px, results)
        for px in sorted(zoo_of(config, root).input_px)
    ]
    return {
        "profile": provenance.file_digest(needed(folder / "profile.json")),
        "emulation": provenance.file_digest(needed(folder / "emulation.json")),
        "detections": digest([_digest_once(path, path.stat().st_mtime_ns) for path in stored]),
    }


@lru_cache(maxsize=1024)
def _digest_once(path: Path, changed: int) -> str:
    return provenance.file_digest(path)


def _provenance(config: Config, run: Run, started: str, results: Path, root: Path) -> Provenance:
    return provenance.collect(
        key=run.key,
        settings=run_settings(config, run.cell, run.clip, run.repetition),
        world=run.cell.world,
        seed=run.seed,
        device=latencies(config, run.cell.device),
        started=started,
        digests=_digests(config, run, results, root),
        root=root,
        code=provenance.SIMULATED_CODE,
    )
