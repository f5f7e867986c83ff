"""Reading what figures are drawn from, and keeping apart what must not be drawn in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jellyfish.errors import DataError
from jellyfish.files.tables import read_tables

# One figure shows one of each: a curve that mixes worlds or policies says nothing.
SETTING = ("world", "device", "latencies", "workers", "policy", "trace")
_NAMED = 4  # of the cells that a figure lacks


def read(
    paths: Path | Sequence[Path], columns: Sequence[str] = (), *, categorical: bool = False
) -> pd.DataFrame:
    """Return the rows of all parquet tables in `paths`, with `columns` and the setting's columns.

    Where they are many, `categorical` keeps the few texts that stand in them once.

    Raises:
        DataError: no table, one is missing or unreadable, or it lacks a column.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    if not paths:
        raise DataError("nothing to draw: no table was given")
    table = read_tables(paths, columns, SETTING)
    frame: pd.DataFrame = table.to_pandas(strings_to_categorical=categorical)
    return frame


def one_setting(
    table: pd.DataFrame, figure: str, *, free: Sequence[str] = (), **wanted: Any
) -> pd.DataFrame:
    """Return the rows of `table` with the `wanted` setting, which must leave exactly one.

    Of what is `free`, such as the policy, a figure may show several.

    Raises:
        DataError: no row is left, or rows of several worlds, devices, policies or traces are.
    """
    rows = table
    for name, value in wanted.items():
        if name not in rows:
            raise DataError(f"{figure}: its tables lack the column {name}")
        rows = rows[rows[name].isin([v for v in rows[name].unique() if str(v) == str(value)])]
    asked = ", ".join(f"{k} {v}" for k, v in wanted.items()) or "anything"
    if rows.empty:
        raise DataError(f"{figure}: no row of its tables has {asked}")
    for name in SETTING:
        found = sorted(map(str, rows[name].unique())) if name in rows and name not in free else []
        if len(found) > 1:
            raise DataError(
                f"{figure}: its tables hold more than one {name} "
                f"({', '.join(found)}); choose one with {name}="
            )
    return rows


def lacking(missing: Sequence[str]) -> list[str]:
    """Return the small print of a figure whose tables lack the cells `missing`: nothing for none.

    The first are named; the rest are in missing.csv.
    """
    if not missing:
        return []
    more = len(missing) - _NAMED
    rest = [f"and {more} more: missing.csv"] if more > 0 else []
    return [f"INCOMPLETE, cells missing: {len(missing)}", *missing[:_NAMED], *rest]


def note(table: pd.DataFrame, *more: str) -> str:
    """Return the small print of a figure drawn from rows of one setting.

    It says which world and latencies they are from, then `more`.
    """
    first = {name: str(table[name].iloc[0]) for name in SETTING if name in table}
    latencies = first.get("latencies", first.get("device", "unknown"))
    parts = [f"{first.get('world', 'unknown world')}, latencies of {latencies}"]
    if "workers" in first:
        parts.append(f"{first['workers']} worker{'s' if first['workers'] != '1' else ''}")
    parts += [f"{name} {first[name]}" for name in ("policy", "trace") if name in first]
    return " · ".join([*parts, *more])
