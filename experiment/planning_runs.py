"""Runs the solvers on the problems of the published simulations, some instances at a time.

What is done lies in results/planning/KEY/, one folder for some instances of a size and a solver,
and is done again only when config values or the solver's code changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from experiment import provenance
from experiment.grid import Config, digest
from experiment.leftovers import is_forced
from experiment.lock import on_testbed
from experiment.paths import ROOT
from experiment.planning_code import digest_behind, files_behind
from experiment.planning_kept import kept
from experiment.planning_rows import LATENCIES, SCHEMA, Row, load, row, table_of
from experiment.planning_study import (
    TIMINGS,
    WORLD,
    Contender,
    Size,
    Study,
    Unit,
    study,
    units,
)
from experiment.progress import progress
from jellyfish.files.atomic import whole_file
from jellyfish.files.provenance import is_complete, read_provenance, write_provenance
from jellyfish.files.tables import read_table

RULES = {stage: f"planning_{stage}" for stage in WORLD}  # stage -> its name in the workflow
PATIENCE = 3  # of a size's first instances; if none of them ends in time, no more are tried
ROWS = "rows.parquet"
COLUMNS = (*SCHEMA.names, "contender", "limit_s", "rejected")  # of a size's table


@dataclass(frozen=True)
class _Place:
    """Where results and code lie, and whom to tell of each instance."""

    results: Path
    root: Path
    step: Callable[[], None]

    def folder(self, unit: Unit) -> Path:
        return self.results / "planning" / unit.key


def run_size(config: Config, stage: str, size: Size, results: Path, root: Path = ROOT) -> Path:
    """Plan every instance of `size` that is not planned yet; return the path of the size's table.

    The table, results/SCENARIO/planning/STAGE/SIZE.parquet, has COLUMNS, and one row an instance
    and solver. The stage `timings` holds the testbed's lock meanwhile.

    Raises:
        ConfigError: hardly any instance of that size counts.
    """
    asked = study(config, stage)
    counted = kept(asked, size)
    table = results / str(config["scenario"]) / "planning" / stage / f"{size.name}.parquet"
    total = len(counted.seeds) * len(asked.contenders)
    with (
        on_testbed() if stage == TIMINGS else nullcontext(),
        progress(f"{stage} {size.name}", total) as step,
    ):
        place = _Place(results, root, step)
        if is_forced(RULES[stage], table):
            _forget(asked, size, counted.seeds, place)
        parts = [_rows(asked, size, each, counted.seeds, place) for each in asked.contenders]
    rows = pa.concat_tables(parts)
    rejected = pa.array([counted.rejected] * len(rows), pa.int64())
    with whole_file(table) as temporary:
        pq.write_table(rows.append_column("rejected", rejected), temporary)
    return table


def is_current(unit: Unit, results: Path, root: Path = ROOT) -> bool:
    """Whether `unit` is there, whole, and made of these values and this code."""
    folder = results / "planning" / unit.key
    if not is_complete(folder, digest(unit.settings)):
        return False
    return read_provenance(folder).code_digest == digest_behind(unit.contender.solver, root)


def _rows(
    asked: Study, size: Size, contender: Contender, seeds: tuple[int, ...], place: _Place
) -> pa.Table:
    """Return all rows of one solver at one size, the missing ones made."""
    parts: list[pa.Table] = []
    for unit in units(asked, size, contender, seeds):
        if parts and _is_hopeless(parts[0].column("ended").to_pylist(), unit):
            break
        if is_current(unit, place.results, place.root):
            for _ in unit.seeds:
                place.step()
        else:
            _do(unit, place)
        parts.append(read_table(place.folder(unit) / ROWS))
    rows = pa.concat_tables(parts)
    names = pa.array([contender.name] * len(rows))
    limits = pa.array([contender.limit_s] * len(rows), pa.float64())
    return rows.append_column("contender", names).append_column("limit_s", limits)


def _do(unit: Unit, place: _Place) -> None:
    """Plan the instances of `unit` and write its folder, whole."""
    started = provenance.now()
    load(unit.contender.solver)
    rows: list[Row] = []
    for seed in unit.seeds:
        if not _is_hopeless([each.ended for each in rows], unit):
            rows.append(row(unit, seed))
        place.step()
    final = place.folder(unit)
    folder = final.with_name(f".{unit.key}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pq.write_table(table_of(rows), folder / ROWS)
    made = provenance.collect(
        key=unit.key,
        settings=unit.settings,
        world=WORLD[unit.stage],
        seed=unit.seeds[0],
        device=LATENCIES,
        started=started,
        root=place.root,
        code=files_behind(unit.contender.solver, place.root),
    )
    write_provenance(folder, made)
    shutil.rmtree(final, ignore_errors=True)
    folder.replace(final)


def _is_hopeless(ended: Sequence[bool], unit: Unit) -> bool:
    """Whether to try no more: time is measured, and the first that were tried took too long."""
    return unit.stage == TIMINGS and len(ended) >= PATIENCE and not any(ended[:PATIENCE])


def _forget(asked: Study, size: Size, seeds: tuple[int, ...], place: _Place) -> None:
    """Remove what was done of `size`, so that it is done again."""
    for contender in asked.contenders:
        for unit in units(asked, size, contender, seeds):
            shutil.rmtree(place.folder(unit), ignore_errors=True)
