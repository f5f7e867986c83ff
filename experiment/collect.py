"""Makes one run's tables of what its server and clients wrote, and checks that none is short.

`python -m experiment.collect FOLDER` makes files of what a killed process streamed to FOLDER.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from client.session import expected_ticks
from experiment.grid import ClientSpec, Config, Run, latencies
from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.journal import write_each
from jellyfish.files.provenance import read_provenance
from jellyfish.files.streams import FRAMES_LINES, clients_of, unmade
from jellyfish.files.tables import frames_table, read_table, write_table
from jellyfish.records import FrameRow, Reason

WORKING_FILES = (
    "go",
    "*.pid",
    "*.ready.json",
    "*.started.json",
    "*.progress.json",
    "*.trace.json",
    "*.jsonl",
    "client-*.frames.parquet",
    "client-*.detections.json",
)


def collect_tables(config: Config, run: Run, folder: Path) -> None:
    """Write frames.parquet and detections.json of the whole run into `folder`.

    Raises:
        RunError: a client has not one row per tick, the server left no plans, or a file cannot be
            written.
        DataError: a file is missing or damaged.
    """
    write_each(unmade(folder))
    stream_s = float(config["client"]["stream_s"])
    tables = []
    detections: list[Any] = []
    for i, client in enumerate(run.cell.clients):
        table = read_table(folder / f"client-{i}.frames.parquet")
        expected = expected_ticks(stream_s, client.fps)
        if len(table) != expected:
            raise RunError(
                f"client {i} has {len(table)} rows, but {stream_s:g} s at {client.fps:g} fps "
                f"are {expected} ticks"
            )
        tables.append(table)
        detections += read_json(folder / f"client-{i}.detections.json")
    read_table(folder / "plans.parquet")
    frames = with_run(pa.concat_tables(tables), config, run)
    write_table(folder / "frames.parquet", frames)
    write_json(folder / "detections.json", detections)


def keep_rows(config: Config, run: Run, folder: Path, why: str) -> None:
    """Write frames.parquet of a run that failed: what its clients left, for a look.

    A client that was killed has what it streamed until then. A tick of its of which nobody has a
    row, or of a client whose host is lost, has one all the same: lost, and why. Nothing is written
    where no client has left any.

    Raises:
        DataError: a client's file is damaged.
    """
    stream_s = float(config["client"]["stream_s"])
    killed = clients_of(folder, FRAMES_LINES)
    recover(folder)
    paths = [folder / f"client-{i}.frames.parquet" for i in range(len(run.cell.clients))]
    if not any(path.exists() for path in paths):
        return
    tables = []
    for i, (path, client) in enumerate(zip(paths, run.cell.clients, strict=True)):
        ticks = set(range(expected_ticks(stream_s, client.fps)))
        if path.exists():
            tables.append(read_table(path))
            ticks -= set(tables[-1].column("frame").to_pylist())
        if i in killed or not path.exists():
            tables.append(_lost(i, client, sorted(ticks), f"{Reason.NO_ROWS}: {why}"))
    write_table(folder / "frames.parquet", with_run(pa.concat_tables(tables), config, run))


def _lost(number: int, client: ClientSpec, ticks: Iterable[int], why: str) -> Any:
    """Return the arrow table of ticks of which there are no rows."""
    return frames_table(
        FrameRow(
            client=number,
            frame=k,
            clip_frame=-1,
            fps=client.fps,
            slo_ms=client.slo_ms,
            capture_s=float("nan"),
            reason=why,
        )
        for k in ticks
    )


def recover(folder: Path) -> bool:
    """Make files of what killed processes streamed to `folder`; tell what cannot be made."""
    try:
        write_each(unmade(folder))
    except RunError as error:
        print(f"while ending: {error}", file=sys.stderr)
        return False
    return True


def with_run(frames: Any, config: Config, run: Run) -> Any:
    """Return the arrow table `frames` with the columns that say which run it is from."""
    cell = run.cell
    columns: dict[str, str | int] = {
        "run": run.key,
        "world": cell.world,
        "device": cell.device,
        "latencies": latencies(config, cell.device),
        "workers": cell.workers,
        "policy": cell.policy,
        "trace": cell.trace,
        "group": cell.group,
        "clients": len(cell.clients),
        "clip": run.clip,
        "repetition": run.repetition,
        "seed": run.seed,
    }
    for name, value in columns.items():
        frames = frames.append_column(name, pa.array([value] * len(frames)))
    return frames


def tidy(folder: Path) -> None:
    """Remove what only the run itself needed, and put logs and jobs into folders."""
    for pattern in WORKING_FILES:
        for path in folder.glob(pattern):
            path.unlink()
    for pattern, name in (("*.log", "logs"), ("*.job.json", "jobs")):
        (folder / name).mkdir(exist_ok=True)
        for path in folder.glob(pattern):
            path.replace(folder / name / path.name)


def summary(run: Run, folder: Path) -> dict[str, Any]:
    """Return what a cell's index says of a run: key, outcomes, and which code made it."""
    made = read_provenance(folder)
    frames = read_table(folder / "frames.parquet", ["outcome"])
    outcomes = Counter(frames.column("outcome").to_pylist())
    return {
        "key": run.key,
        "clip": run.clip,
        "repetition": run.repetition,
        "seed": run.seed,
        "frames": len(frames),
        "outcomes": dict(sorted(outcomes.items())),
        "commit": made.commit,
        "dirty": made.dirty,
        "code_digest": made.code_digest,
    }


if __name__ == "__main__":
    sys.exit(0 if recover(Path(sys.argv[1])) else 1)
