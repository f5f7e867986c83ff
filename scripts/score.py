"""Scores: what each run was worth, as a tidy table, results/SCENARIO/scores.parquet and .csv.

scores: one row a run. scores_by_cell: one row a cell, the frames of its runs pooled (`run` empty,
`clip` all, `repetition` -1). Same columns in both; `scripts.scored.COLUMNS` says what each means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiment.disturbance import Told, told
from experiment.grid import Cell, Run, cells, latencies, runs
from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from jellyfish.files.tables import read_table
from jellyfish.files.zoo import read_zoo
from jellyfish.matching import Rule
from jellyfish.records import Outcome
from scripts.answers import StoredDetections, came_back
from scripts.scored import COLUMNS, READ, Scored, trace_rhos, values


def load_run(run: Run, folder: Path, stored: StoredDetections) -> Scored:
    """Read and match `run`, which lies in `folder`.

    Raises:
        DataError: a file is missing or broken, a row belongs to no frame of the clip, or the
            detections name a frame that the table lacks; the text names the file.
    """
    path = folder / "frames.parquet"
    frames: pd.DataFrame = read_table(path, READ).to_pandas(strings_to_categorical=True)
    if frames.empty:
        raise DataError(f"{path} has no rows")
    reference = stored.reference(run.clip)
    if not frames["clip_frame"].between(0, len(reference) - 1).all():
        raise DataError(f"{path} has a clip_frame beyond the {len(reference)} of the clip")
    in_time = (frames["outcome"] == Outcome.OK).to_numpy(bool)
    if run.cell.world == "simulated":
        of_clip = stored.answers(run.clip)
        answers, given = of_clip.answers, of_clip.given(frames, in_time, path)
    else:
        kept = folder / "detections.json"
        answers = came_back(frames, in_time, kept, reference, stored.rule)
        given = np.arange(len(frames))
    return Scored(frames, answers, given, trace_rhos(frames))


def tables(
    config: Mapping[str, Any], results: Path, root: Path, missing: Collection[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of every run and of every cell of the config's grid but the `missing`.

    Raises:
        DataError: all cells are missing, or a run or the reference detections are missing or
            broken.
        ConfigError: the zoo has none of a class that is to be scored.
    """
    rule = Rule.from_config(config["scoring"], read_zoo(root / config["zoo"]).labels)
    stored = StoredDetections(config, results, root, rule)
    by_run: list[dict[str, Any]] = []
    by_cell: list[dict[str, Any]] = []
    there = [cell for cell in cells(config) if cell.name not in missing]
    if not there:
        raise DataError("nothing to score: no cell of the grid is finished")
    for cell in there:
        *rows, pooled = _cell_rows(config, cell, results, stored)
        by_run += rows
        by_cell.append(pooled)
    return pd.DataFrame(by_run)[list(COLUMNS)], pd.DataFrame(by_cell)[list(COLUMNS)]


def _cell_rows(
    config: Mapping[str, Any], cell: Cell, results: Path, stored: StoredDetections
) -> Iterator[dict[str, Any]]:
    """Yield a row a run, then one of the whole cell."""
    parts, all_told = [], []
    for run in runs(config, cell):
        folder = results / "runs" / run.key
        part = load_run(run, folder, stored)
        parts.append(part)
        all_told.append(told(folder))
        scores = values(part)
        yield _names(config, cell, run) | scores | _disturbed(all_told[-1:])
    pooled = scores if len(parts) == 1 else values(Scored.pooled(parts))
    yield _names(config, cell, None) | pooled | _disturbed(all_told)


def _disturbed(runs_told: Sequence[Told]) -> dict[str, float]:
    """Return the columns that tell what disturbed runs, NaN where nobody watched any of them."""
    known = [one for one in runs_told if one.of is not None]
    if not known:
        return dict.fromkeys(("cpu_others", "cpu_stolen", "disturbed"), float("nan"))
    return {
        "cpu_others": max(one.of.others for one in known if one.of),
        "cpu_stolen": max(one.of.stolen for one in known if one.of),
        "disturbed": sum(one.disturbed for one in known),
    }


def _names(config: Mapping[str, Any], cell: Cell, run: Run | None) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "run": run.key if run else "",
        "world": cell.world,
        "device": cell.device,
        "latencies": latencies(config, cell.device),
        "workers": cell.workers,
        "policy": cell.policy,
        "trace": cell.trace,
        "group": cell.group,
        "clients": len(cell.clients),
        "slo": cell.slo,
        "fps": cell.fps,
        "clip": run.clip if run else "all",
        "repetition": run.repetition if run else -1,
    }


def main(
    config: Mapping[str, Any],
    results: Path,
    root: Path = Path(),
    missing: Collection[str] = (),
) -> Path:
    """Write scores and scores_by_cell, .parquet and .csv, into results/SCENARIO/.

    Cells whose names are among `missing` are left out.

    Returns:
        The path of scores.parquet.

    Raises:
        DataError, ConfigError: as `tables`.
    """
    folder: Path = results / config["scenario"]
    by_run, by_cell = tables(config, results, root, missing)
    _write(by_cell, folder / "scores_by_cell.parquet")
    _write(by_run, folder / "scores.parquet")
    return folder / "scores.parquet"


def _write(scores: pd.DataFrame, path: Path) -> None:
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pandas(scores, preserve_index=False), temporary)
    with whole_file(path.with_suffix(".csv")) as temporary:
        scores.to_csv(temporary, index=False, float_format="%.6g")
