"""The two raw tables of a run: frames.parquet and plans.parquet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from jellyfish.records import FrameRow

_ARROW = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "Outcome": pa.string()}


@dataclass(slots=True)
class PlanRow:
    """One scheduler run. `dnns_px`, `batches`: one entry a GPU, 0 for none."""

    time_s: float  # the server's clock
    solver: str
    dnns_px: list[int]
    batches: list[int]
    clients: list[int]  # client numbers as registered, in the order of `mapping`
    mapping: list[int]  # GPU of each client, -1 for none
    bandwidth_kbps: list[float]  # what the scheduler reckoned with, client by client
    effectiveness: float
    accuracy: float
    solve_ms: float


FRAMES = pa.schema([(field.name, _ARROW[str(field.type)]) for field in fields(FrameRow)])
PLANS = pa.schema(
    [
        ("time_s", pa.float64()),
        ("solver", pa.string()),
        ("dnns_px", pa.list_(pa.int64())),
        ("batches", pa.list_(pa.int64())),
        ("clients", pa.list_(pa.int64())),
        ("mapping", pa.list_(pa.int64())),
        ("bandwidth_kbps", pa.list_(pa.float64())),
        ("effectiveness", pa.float64()),
        ("accuracy", pa.float64()),
        ("solve_ms", pa.float64()),
    ]
)


def frames_table(rows: Iterable[FrameRow]) -> Any:
    """Return an arrow table of one row a captured frame."""
    return _table(rows, FRAMES)


def write_frames(path: Path, rows: Iterable[FrameRow]) -> None:
    """Write one row a captured frame."""
    _write(path, frames_table(rows))


def write_plans(path: Path, rows: Iterable[PlanRow]) -> None:
    """Write one row a scheduler run."""
    _write(path, _table(rows, PLANS))


def read_table(path: Path) -> Any:
    """Return the table in `path` as an arrow table.

    Raises:
        DataError: the file is missing or no parquet.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no parquet file: {error}") from error


def _table(rows: Iterable[Any], schema: Any) -> Any:
    everything = list(rows)  # column by column: a dictionary a row takes ten times as long
    columns = [
        pa.array([getattr(row, field.name) for row in everything], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _write(path: Path, table: pa.Table) -> None:
    with whole_file(path) as temporary:
        pq.write_table(table, temporary)
