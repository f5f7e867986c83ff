"""The two raw tables of a run: frames.parquet and plans.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
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
    return table(rows, FRAMES)


def write_frames(path: Path, rows: Iterable[FrameRow]) -> None:
    """Write one row a captured frame."""
    write_table(path, frames_table(rows))


def write_plans(path: Path, rows: Iterable[PlanRow]) -> None:
    """Write one row a scheduler run."""
    write_table(path, table(rows, PLANS))


def read_table(path: Path, columns: Sequence[str] = (), optional: Sequence[str] = ()) -> Any:
    """Return the table in `path`, or only `columns` of it, as an arrow table.

    Args:
        path: where it lies.
        columns: which ones; all if none is named.
        optional: further ones, where there are such.

    Raises:
        DataError: the file is missing, no parquet, or lacks one of `columns`.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            lacking = [name for name in columns if name not in there]
            if lacking:
                raise DataError(
                    f"{path} lacks the columns {', '.join(lacking)}; it has: {', '.join(there)}"
                )
            wanted = {*columns, *optional} if columns else set(there)
            return file.read(columns=[name for name in there if name in wanted])
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no parquet file: {error}") from error


def read_tables(
    paths: Sequence[Path], columns: Sequence[str] = (), optional: Sequence[str] = ()
) -> Any:
    """Return the rows of all tables in `paths`, one at least, as `read_table` reads each.

    Raises:
        DataError: as `read_table`.
    """
    parts = [read_table(path, columns, optional) for path in paths]
    return pa.concat_tables(parts, promote_options="permissive")


def table(rows: Iterable[Any], schema: Any) -> Any:
    """Return an arrow table of one row an object."""
    everything = list(rows)  # column by column: a dictionary a row takes ten times as long
    columns = [
        pa.array(list(map(attrgetter(field.name), everything)), type=field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(path: Path, table: Any) -> None:
    """Write the arrow table `table`, whole; numbers in the form that takes the least room."""
    floats = [field.name for field in table.schema if field.type == pa.float64()]
    others = [name for name in table.schema.names if name not in floats]
    with whole_file(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=others or False,
            use_byte_stream_split=floats or False,
        )
