"""Profiles of emulated devices: stated latencies, or those measured on another device.

Beside profile.json, which the scheduler reads, lies emulation.json, from which a batch's time is
drawn (see jellyfish.emulation). What DNNs are worth does not depend on the device.
"""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

from experiment.grid import Config, emulated, pick
from experiment.paths import ROOT, emulation_path, latency_path, zoo_of
from experiment.profiling import batch_sizes, raw_row, read_samples, write_parts
from jellyfish.emulation import P99
from jellyfish.files.atomic import write_json

MAX_BATCH = 12
SIGMA, CAP = 0.06, 1.3  # of the factor by which a batch differs from the stated p99


def synthetic_ms(px: int, batch: int) -> float:
    """Return the p99 latency of a batch on a device like an RTX 2080 Ti; stated, not measured."""
    return 10 + 3 * (px - 128) / 480 + 22 * (px / 608) ** 2 * batch


def emulate_profile(config: Config, device: str, results: Path, root: Path = ROOT) -> Path:
    """Write profile.json, profile_raw.csv and emulation.json of an emulated `device`.

    Returns:
        The path of profile.json.

    Raises:
        DataError: the accuracy of a DNN is missing, or a latency of the device that is emulated.
        ConfigError: there is no such device, or it cannot be emulated.
    """
    emulates = emulated(config, device)
    if emulates is None:
        rows, model = _synthetic(config, device, root)
    else:
        rows, model = _measured(config, emulates, results, root)
    write_json(emulation_path(config, device, results), model)
    return write_parts(config, device, rows, results, root)


def _synthetic(
    config: Config, device: str, root: Path
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    sizes = range(1, int(pick(config, "devices", device).get("max_batch", MAX_BATCH)) + 1)
    rows = [_stated_row(px, batch) for px in zoo_of(config, root).input_px for batch in sizes]
    latency_ms = [row["p99_ms"] for row in rows]
    by_dnn = [latency_ms[i : i + len(sizes)] for i in range(0, len(rows), len(sizes))]
    return rows, {"kind": "jitter", "latency_ms": by_dnn, "sigma": SIGMA, "cap": CAP}


def _stated_row(px: int, batch: int) -> dict[str, float]:
    p99 = synthetic_ms(px, batch)
    median = p99 * exp(-P99 * SIGMA)
    return {
        "px": px,
        "batch": batch,
        "batches": 0,  # none was measured
        "mean_ms": median * exp(SIGMA**2 / 2),
        "p50_ms": median,
        "p99_ms": p99,
        "p99_low_ms": p99,
        "p99_high_ms": p99,
        "frames_per_s": batch * 1000.0 / p99,
    }


def _measured(
    config: Config, device: str, results: Path, root: Path
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    sizes = batch_sizes(config)
    path = latency_path(config, device, results)
    samples = read_samples(path, zoo_of(config, root).input_px, sizes)
    rows = [raw_row(px, b, of_dnn[b]) for px, of_dnn in samples.items() for b in sizes]
    by_dnn = [[of_dnn[b].tolist() for b in sizes] for of_dnn in samples.values()]
    return rows, {"kind": "samples", "samples_ms": by_dnn}
