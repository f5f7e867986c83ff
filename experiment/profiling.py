"""Profiles of a zoo on a device: what each DNN costs there, and what it is worth.

Latency is measured per DNN on the device that will serve, through a worker process pinned as in
serving, with the frames of a clip that no run uses. Accuracy is the strict F1 against the
reference DNN's detections on the same frames.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiment import provenance
from experiment.disturbance import Disturbance
from experiment.grid import Config, pick, zoo_name
from experiment.labelled import labelled_precision
from experiment.latency import Round, job_of, measure, rounds_of
from experiment.lock import on_testbed
from experiment.paths import (
    ROOT,
    accuracy_path,
    detections_path,
    latency_path,
    needed,
    profile_folder,
    zoo_of,
)
from experiment.places import LocalPlace
from experiment.progress import progress
from jellyfish.average_precision import average_precision
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.atomic import read_json, whole_file, write_json
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.files.profiles import write_profile
from jellyfish.matching import Rule, published, strict
from jellyfish.profile import FloatArray, Profile

FEWEST_BATCHES = 100  # a p99 from fewer says nothing
RESAMPLES = 2000
RAW_COLUMNS = (
    "px",
    "batch",
    "batches",
    "mean_ms",
    "p50_ms",
    "p99_ms",
    "p99_low_ms",
    "p99_high_ms",
    "frames_per_s",
)


def profile_latency(config: Config, device: str, results: Path, root: Path = ROOT) -> Path:
    """Measure the zoo's DNNs on `device`; return the path of the raw samples.

    Where the config names hosts, on the server's: its device is what a plan is made for. Holds that
    machine's testbed. Writes results/profiles/KEY/latency.json: `rounds`, each with `samples_ms`,
    the milliseconds for which each batch occupied the worker, by input size and batch size, and
    with what disturbed it. Rounds are kept one by one: what was cut off goes on where it was.

    Raises:
        ConfigError: the config asks for too few batches, or leaves out a batch size.
        DataError: clip or model are missing or damaged.
        DeviceError: the device failed.
        RunError: it failed on the server's host, or that cannot be used.
    """
    batch_sizes(config)
    path = latency_path(config, device, results)
    part = path.with_suffix(".part.json")
    rounds: list[Round] = read_json(part) if part.is_file() else []
    wanted, dnns = rounds_of(int(config["profile"]["batches"])), len(zoo_of(config, root).input_px)

    def keep(found: Round) -> None:
        rounds.append(found)
        write_json(part, rounds)
        if found["disturbed"]:
            what = f"round {len(rounds)} of {wanted} disturbed, kept all the same"
            print(f"{path.parent.name}: {what}: {Disturbance(**found['of'])}", file=sys.stderr)

    with progress(f"latencies of {zoo_name(config)} on {device}", wanted * dnns) as step:
        for _ in range(dnns * min(wanted, len(rounds))):
            step()
        if len(rounds) < wanted:
            _measure(config, device, wanted - len(rounds), results, root, step, keep)
    commit, dirty = provenance.checkout(root)
    value = {
        "device": dict(pick(config, "devices", device)),
        "warmup": int(config["profile"]["warmup"]),
        "rounds": rounds,
        "commit": commit,
        "dirty": dirty,
        "code_digest": provenance.code_digest(root),
    }
    write_json(path, value)
    part.unlink()
    return path


def _measure(
    config: Config,
    device: str,
    rounds: int,
    results: Path,
    root: Path,
    step: Callable[[], None],
    keep: Callable[[Round], None],
) -> None:
    if config["hosts"] is not None:
        from experiment.remote_latency import measure_there  # and with it SSH

        measure_there(config, device, rounds, results, root, step, keep)
        return
    job = job_of(config, device, rounds, LocalPlace(Path(), root), results, root)
    with on_testbed():
        measure(job, step, keep)


def batch_sizes(config: Config) -> list[int]:
    """Return 1, 2, ... up to the largest batch that is measured.

    Raises:
        ConfigError: one is left out, or too few batches are asked for.
    """
    asked = config["profile"]
    if int(asked["batches"]) < FEWEST_BATCHES:
        raise ConfigError(
            f"config: profile.batches is {asked['batches']}; a p99 needs {FEWEST_BATCHES} or more"
        )
    sizes = sorted(int(size) for size in asked["batch_sizes"])
    if sizes != list(range(1, len(sizes) + 1)):
        raise ConfigError(f"config: profile.batch_sizes is {sizes}; want 1, 2, ... without a gap")
    return sizes


def profile_accuracy(config: Config, px: int, results: Path, root: Path = ROOT) -> Path:
    """Score the zoo's DNN at `px` on the profile clip; return the path of the scores.

    Writes results/accuracy/KEY/PX.json: F1 (strict, published), precision, recall, AP
    against the reference DNN, AP against labels where the config names some, mean frame bytes.

    Raises:
        DataError: detections are missing, or the reference finds nothing to be scored.
    """
    clip = config["profile"]["clip"]
    zoo = zoo_of(config, root)
    rule = Rule.from_config(config["scoring"], zoo.labels)
    own = read_clip_detections(needed(detections_path(config, clip, px, results)))
    truth_path = detections_path(config, clip, zoo.reference_px, results)
    truth = read_clip_detections(needed(truth_path)).frames
    found = own.frames
    counts = strict(found, truth, rule)
    if not (counts.tp + counts.fn).any():
        raise DataError(f"{truth_path}: no {', '.join(config['scoring']['classes'])} to score by")
    precision = average_precision(found, truth, rule)
    labels = config["scoring"]["labelled"]
    scores = {
        "px": px,
        "f1": counts.f1,
        "precision": _number(counts.precision),
        "recall": counts.recall,
        "f1_published": published(found, truth, rule).f1,
        "ap": precision.ap,
        "ap50": precision.ap50,
        "ap_labelled": labelled_precision(config, px, results, root) if labels else None,
        "frame_bytes": float(np.mean(own.frame_bytes)),
    }
    path = accuracy_path(config, px, results)
    write_json(path, scores)
    return path


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def assemble_profile(config: Config, device: str, results: Path, root: Path = ROOT) -> Path:
    """Put the profile of the zoo on `device` together; return the path of profile.json.

    Writes profile.json (p99, monotone; accuracy: strict F1) and profile_raw.csv beside it: one
    row a DNN and batch size with the p99's 95 % bootstrap interval.

    Raises:
        DataError: a DNN's latency or accuracy is missing, damaged or from too few batches.
    """
    zoo, sizes = zoo_of(config, root), batch_sizes(config)
    latency = read_samples(latency_path(config, device, results), zoo.input_px, sizes)
    rows = [raw_row(px, b, latency[px][b]) for px in zoo.input_px for b in sizes]
    return write_parts(config, device, rows, results, root)


def write_parts(
    config: Config, device: str, rows: list[dict[str, float]], results: Path, root: Path = ROOT
) -> Path:
    """Write the profile of `device` whose rows, DNN by DNN, are those of profile_raw.csv.

    Raises:
        DataError: a DNN's accuracy is missing.
    """
    folder, zoo = profile_folder(config, device, results), zoo_of(config, root)
    scores = [read_json(needed(accuracy_path(config, px, results))) for px in zoo.input_px]
    profile = Profile(
        input_px=zoo.input_px,
        frame_bytes=[score["frame_bytes"] for score in scores],
        accuracy=[score["f1"] for score in scores],
        latency_ms=np.array([row["p99_ms"] for row in rows]).reshape(len(zoo.input_px), -1),
    )
    with whole_file(folder / "profile_raw.csv") as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, RAW_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    write_profile(folder / "profile.json", profile)
    return folder / "profile.json"


def read_samples(
    path: Path, input_px: Sequence[int], sizes: Sequence[int]
) -> dict[int, dict[int, FloatArray]]:
    """Return the measured latencies, ms, by input size and batch size.

    Raises:
        DataError: the file is missing or damaged, or a batch size has too few.
    """
    rounds = read_json(path)["rounds"]
    found = {}
    for px in input_px:
        of_dnn = [each["samples_ms"].get(str(px), {}) for each in rounds]
        found[px] = {
            b: np.array([ms for each in of_dnn for ms in each.get(str(b), [])], np.float64)
            for b in sizes
        }
        for b, samples in found[px].items():
            if len(samples) < FEWEST_BATCHES:
                raise DataError(
                    f"{path}: {len(samples)} batches of {b} at {px} px; a p99 needs "
                    f"{FEWEST_BATCHES} or more; remove it and run again"
                )
    return found


def raw_row(px: int, batch: int, samples: FloatArray) -> dict[str, float]:
    """Return the row of profile_raw.csv for one DNN and batch size."""
    low, high = p99_interval(samples)
    p99 = float(np.percentile(samples, 99))
    return {
        "px": px,
        "batch": batch,
        "batches": len(samples),
        "mean_ms": float(samples.mean()),
        "p50_ms": float(np.percentile(samples, 50)),
        "p99_ms": p99,
        "p99_low_ms": low,
        "p99_high_ms": high,
        "frames_per_s": batch * 1000.0 / p99,
    }


def p99_interval(samples: FloatArray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (percentile method) of the p99 of `samples` (N,)."""
    rng = np.random.default_rng(0)  # the same samples give the same interval
    drawn = rng.choice(samples, size=(RESAMPLES, len(samples)))
    low, high = np.percentile(np.percentile(drawn, 99, axis=1), [2.5, 97.5])
    return float(low), float(high)
