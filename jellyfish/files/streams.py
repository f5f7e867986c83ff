"""What server and clients stream to disk while they run, and the files that it becomes.

As JSON lines (`jellyfish.files.journal`): `server.plans.jsonl`, a row a scheduler run;
`server.clients.jsonl`, what became of each client that has left; `server.state.json`, the same of
those that are there and the server's own counts, twice a second; `client-N.frames.jsonl`, a row a
frame once it has an outcome, NaN left out; `client-N.detections.jsonl`, a list of COCO results a
frame. At the end of a process, or by `experiment.collect` after it was killed, they become
plans.parquet, server.json, client-N.frames.parquet and client-N.detections.json, and are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from itertools import islice
from math import isnan, nan
from pathlib import Path
from typing import Any

import pyarrow as pa

from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.journal import Jobs, read_lines
from jellyfish.files.tables import FRAMES, PLANS, PlanRow, table, write_table
from jellyfish.records import FrameRow

PLANS_LINES, CLIENTS_LINES, STATE = (
    "server.plans.jsonl",
    "server.clients.jsonl",
    "server.state.json",
)
PLANS_TABLE, SUMMARY = "plans.parquet", "server.json"
FRAMES_LINES, DETECTIONS_LINES = "client-{}.frames.jsonl", "client-{}.detections.jsonl"
FRAMES_TABLE, DETECTIONS = "client-{}.frames.parquet", "client-{}.detections.json"
_NAN_PLAN: dict[str, Any] = {field.name: nan for field in fields(PlanRow)}
_SEVERAL = 2000  # rows that are in memory as objects at a time


def as_record(row: FrameRow | PlanRow) -> dict[str, Any]:
    """Return a row as a JSON object, without what is NaN."""
    values = ((field.name, getattr(row, field.name)) for field in fields(row))
    return {name: v for name, v in values if not (isinstance(v, float) and isnan(v))}


def server_jobs(folder: Path, state: dict[str, Any] | None = None) -> Jobs:
    """Return the server's files, and what makes them of what was streamed to `folder`.

    Args:
        folder: where both lie.
        state: the last one; None for the one on disk.
    """
    return {
        folder / SUMMARY: partial(_make_summary, folder, state),
        folder / PLANS_TABLE: partial(_make_plans, folder),
    }


def client_jobs(folder: Path, client: int) -> Jobs:
    """Return a client's files, and what makes them of what was streamed to `folder`."""
    frames, detections = FRAMES_TABLE.format(client), DETECTIONS.format(client)
    return {
        folder / frames: partial(_make_frames, folder, client),
        folder / detections: partial(_make_detections, folder, client),
    }


def unmade(folder: Path) -> Jobs:
    """Return the files that processes which were killed, or found no room, left unmade."""
    jobs: dict[Path, Callable[[], None]] = {}
    if (folder / STATE).exists():
        jobs[folder / SUMMARY] = partial(_make_summary, folder, None)
    if (folder / PLANS_LINES).exists():
        jobs[folder / PLANS_TABLE] = partial(_make_plans, folder)
    for client in clients_of(folder, FRAMES_LINES):
        jobs[folder / FRAMES_TABLE.format(client)] = partial(_make_frames, folder, client)
    for client in clients_of(folder, DETECTIONS_LINES):
        jobs[folder / DETECTIONS.format(client)] = partial(_make_detections, folder, client)
    return jobs


def clients_of(folder: Path, name: str) -> list[int]:
    """Return the numbers of the clients that have a file called `name` in `folder`."""
    before, _, after = name.partition("{}")
    found = [path.name for path in folder.glob(f"{before}*{after}")]
    return sorted(int(one.removeprefix(before).removesuffix(after)) for one in found)


def summary(gone: Iterable[dict[str, Any]], state: dict[str, Any]) -> dict[str, Any]:
    """Return what became of the frames of every client that ever joined, by name.

    Args:
        gone: `name`, `client` and counts of each client that has left.
        state: the same as `clients` of those that are there, and the server's own counts.
    """
    clients: dict[str, dict[str, int]] = {}
    for record in sorted([*gone, *state["clients"]], key=lambda record: int(record["client"])):
        counts = dict(record)
        name = str(counts.pop("name"))
        while name in clients:
            name += f"#{counts['client']}"
        clients[name] = counts
    return {**state, "clients": clients}


def _make_summary(folder: Path, state: dict[str, Any] | None) -> None:
    lines, latest = folder / CLIENTS_LINES, folder / STATE
    known = read_json(latest) if state is None else state
    gone = {record["client"]: record for record in read_lines(lines)}
    there = [record for record in known["clients"] if record["client"] not in gone]
    write_json(folder / SUMMARY, summary(gone.values(), {**known, "clients": there}))
    for path in (lines, latest):
        path.unlink(missing_ok=True)


def _make_plans(folder: Path) -> None:
    lines = folder / PLANS_LINES
    rows = (PlanRow(**(_NAN_PLAN | record)) for record in read_lines(lines))
    write_table(folder / PLANS_TABLE, _several(rows, PLANS))
    lines.unlink()


def _make_frames(folder: Path, client: int) -> None:
    lines = folder / FRAMES_LINES.format(client)
    frames = _several((FrameRow(**record) for record in read_lines(lines)), FRAMES)
    write_table(folder / FRAMES_TABLE.format(client), frames.sort_by("frame"))
    lines.unlink()


def _make_detections(folder: Path, client: int) -> None:
    lines = folder / DETECTIONS_LINES.format(client)
    images = sorted(read_lines(lines), key=lambda entries: int(entries[0]["image_id"]))
    write_json(folder / DETECTIONS.format(client), [one for entries in images for one in entries])
    lines.unlink()


def _several(rows: Iterator[Any], schema: Any) -> Any:
    """Return one arrow table of all rows, of which only some are objects at a time."""
    parts = []
    while some := list(islice(rows, _SEVERAL)):
        parts.append(table(some, schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()
