"""Tables as the workflow writes them, with made-up but plausible numbers, to draw from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiment.collect import with_run
from experiment.grid import Cell, ClientSpec, Run
from jellyfish.files.profiles import write_profile
from jellyfish.files.tables import read_table, write_frames
from jellyfish.profile import Profile
from jellyfish.records import FrameRow, Outcome, Reason

SIZES = tuple(range(128, 609, 32))
STEPS = (20, 15, 10, 7.5, 10, 15, 20)
CELL: dict[str, str | int] = {
    "world": "measured",
    "device": "cpu",
    "latencies": "cpu: onnxruntime",
    "policy": "jellyfish",
    "trace": "synthetic",
    "workers": 1,
}
CONFIG = {"devices": {"cpu": {"kind": "onnxruntime"}}}


def profile(batches: int = 2) -> Profile:
    """Return a profile like that of a small DNN on one core."""
    px = np.array(SIZES, float)
    first = 3.5 + 108 * (px / 608) ** 1.9
    latency = first[:, None] * (0.08 + 0.92 * np.arange(1, batches + 1))
    return Profile(
        input_px=px,
        frame_bytes=px * px * 3 / (4 + px / 140),
        accuracy=np.clip(0.9 / (1 + np.exp(-(px - 280) / 55)), 0, 1),
        latency_ms=latency,
    )


def write_profile_tables(folder: Path, batches: int = 2, samples: int = 100) -> tuple[Path, Path]:
    """Write profile.json and profile_raw.csv; return their paths."""
    rng, zoo = np.random.default_rng(1), profile(batches)
    rows = []
    for m, px in enumerate(SIZES):
        for b in range(batches):
            p99 = zoo.latency_ms[m, b] * rng.uniform(0.96, 1.04)
            rows.append(
                {
                    "px": px,
                    "batch": b + 1,
                    "batches": samples,
                    "p50_ms": p99 * 0.85,
                    "p99_ms": p99,
                    "p99_low_ms": p99 * rng.uniform(0.88, 0.97),
                    "p99_high_ms": p99 * rng.uniform(1.03, 1.25),
                }
            )
    write_profile(folder / "profile.json", zoo)
    pd.DataFrame(rows).to_csv(folder / "profile_raw.csv", index=False)
    return folder / "profile.json", folder / "profile_raw.csv"


def client_rows(client: int, clients: int, slo_ms: float, fps: float) -> list[FrameRow]:
    """Return a client's 28 s: the DNN follows the trace and the load, steps down cost frames."""
    rng = np.random.default_rng([client, clients, int(slo_ms), int(fps)])
    shift, estimate, rows = int(rng.integers(7)), 100.0, []
    for k in range(int(28 * fps)):
        t = k / fps
        true = STEPS[(int(t / 2) + shift) % 7]
        estimate += (true * rng.uniform(0.85, 1.1) - estimate) * 0.3
        want = (slo_ms - 20) * estimate / 14 / (1 + 0.4 * (clients - 1) * fps / 10)
        px = int(np.clip(128 + want * 4 // 32 * 32, 128, 608))
        e2e = 6 + 0.1 * px + px * px * 0.2 * 8 / true / 1000 + rng.gamma(2 + 1.5 * clients, 3)
        row = FrameRow(client, k, k % 240, fps, slo_ms, t)
        row.px_sent, row.dnn_px, row.e2e_ms, row.outcome = px, px, e2e, Outcome.OK
        row.bandwidth_est_kbps = estimate * 1000
        row.bandwidth_true_kbps = true * 1000
        if e2e > slo_ms:
            late = e2e < slo_ms + 4
            row.outcome = Outcome.LATE if late else Outcome.DROPPED
            if not late:
                row.reason, row.dnn_px, row.e2e_ms = Reason.TOO_LATE, -1, e2e * 0.7
        rows.append(row)
    return rows


def write_run(
    path: Path,
    clients: int = 2,
    slo_ms: float = 100,
    fps: float = 10,
    group: str = "",
    policy: str = "jellyfish",
) -> Path:
    """Write the frames.parquet of one run, with the columns of its cell; return `path`."""
    rows = [row for i in range(clients) for row in client_rows(i, clients, slo_ms, fps)]
    write_frames(path, rows)
    cell = Cell(
        world="measured",
        device="cpu",
        workers=1,
        policy=policy,
        trace="synthetic",
        group=group or str(clients),
        clients=(ClientSpec(slo_ms, fps),) * clients,
        clips=("vtest-1",),
        repetitions=1,
    )
    run = Run(cell=cell, clip="vtest-1", repetition=0, key=cell.name, seed=1)
    pq.write_table(with_run(read_table(path), CONFIG, run), path)
    return path


def write_scores(path: Path, clips: int = 1, mixed: bool = False, **setting: str | int) -> Path:
    """Write a scores table of clients x SLO x fps x clips, one row a run; return `path`."""
    rng, rows = np.random.default_rng(2), []
    groups = [(n, str(slo), str(fps)) for n in (1, 2, 4) for slo in (100, 150) for fps in (10, 15)]
    for clip in range(clips):
        for clients, slo, fps in [*groups, *([(4, "var", "var")] if mixed else [])]:
            load = clients * float(fps if fps != "var" else 15) / 10
            late = 100 / float(slo if slo != "var" else 100)
            rows.append(
                {
                    **CELL,
                    "run": f"{clients}-{slo}-{fps}-{clip}",
                    "clip": f"vtest-{clip + 1}",
                    "group": f"{clients}_var_var" if slo == "var" else str(clients),
                    "clients": clients,
                    "slo": slo,
                    "fps": fps,
                    "f1_strict_all": 0.78 / (1 + 0.25 * load * late) + rng.normal(0, 0.02),
                    "miss_rate": min(1, 0.004 * load**2 * late**3 * rng.uniform(0.5, 1.5)),
                    **setting,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_policy_scores(
    path: Path, policies: Sequence[str], traces: Sequence[str], repetitions: int = 3
) -> Path:
    """Write a scores table of policies x traces x repetitions x four cells; return `path`."""
    rng, rows = np.random.default_rng(3), []
    cells = [(clients, slo) for clients in ("2", "8") for slo in ("75", "100")]
    for i, policy in enumerate(policies):
        for trace, (group, slo), repetition in product(traces, cells, range(repetitions)):
            load = int(group) * 75 / float(slo) * (2 if trace == "lte" else 1)
            frames = 3500 * int(group)
            misses = 0.002 * load**1.5 / (1 + i) * rng.uniform(0.8, 1.2)
            f1 = 0.5 + 0.01 * i - 0.01 * load + rng.normal(0, 0.004)
            rows.append(
                {
                    **CELL,
                    "policy": policy,
                    "trace": trace,
                    "group": group,
                    "slo": slo,
                    "fps": "25",
                    "clip": "vtest-1",
                    "repetition": repetition,
                    "frames": frames,
                    "ok": round(frames * (1 - misses)),
                    "tp_strict_all": frames,
                    "fp_strict_all": round(frames * (1 / f1 - 1)),
                    "fn_strict_all": round(frames * (1 / f1 - 1)),
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_agreement(path: Path, cells: int = 12, real: int = 4) -> list[dict[str, str]]:
    """Write a scores table of cells in both worlds, three runs each; return their pairs."""
    rng, rows, pairs = np.random.default_rng(4), [], []
    for i in range(cells + real):
        pair = {"kind": "emulated" if i < cells else "real"}
        clients, fps = (1, 2, 4)[i % 3], (15, 25)[i // 3 % 2]
        for world, repetition in product(("measured", "simulated"), range(3)):
            device = "cpu" if i >= cells else "gpu"
            pair[world] = f"{world}-{device}-{i}"
            rows.append(
                {
                    **CELL,
                    "cell": pair[world],
                    "world": world,
                    "latencies": f"emulated {device}" if i < cells else "cpu: onnxruntime",
                    "group": str(clients),
                    "slo": str((75, 100)[i // 6 % 2]),
                    "fps": str(fps),
                    "repetition": repetition,
                    "frames": 2000 * clients,
                    "disturbed": float(i == 0) if world == "measured" else np.nan,
                    "miss_rate": abs(0.005 * clients + rng.normal(0, 0.002)),
                    "f1_strict_all": 0.6 - 0.03 * clients + rng.normal(0, 0.006),
                    "e2e_p50_ms": 40 + 2 * clients + rng.normal(0, 0.6),
                    "e2e_p99_ms": 65 + 5 * clients + rng.normal(0, 3),
                }
            )
        pairs.append(pair)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return pairs
