"""Whether a device was as fast in a run as when it was profiled.

A core's speed drifts where machines share it, or where it gets hot. Plans are made with the profile
all the same: a slower device lets frames wait, and misses more, than its plans expect.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from experiment.grid import Cell, Config, cells, runs
from experiment.paths import profile_folder, run_folder
from jellyfish.errors import DataError
from jellyfish.files.tables import read_table
from jellyfish.policy import policy

COLUMNS = ("dnn_px", "batch", "decode_ms", "execute_ms")
FEWEST = 30  # frames of one DNN and batch size; fewer tell nothing


def drifts(config: Config, results: Path, missing: Collection[str] = ()) -> dict[str, float]:
    """Return, by measured cell, how long its batches took, 1 being as profiled.

    Medians are compared by DNN and batch size, and weighed by their numbers of frames. Left out are
    cells with too few frames of all that was profiled, those whose policy pads batches, which take
    longer than their frames tell, and the `missing`.

    Raises:
        DataError: the table of a run or of a profile is missing or damaged.
    """
    found = {}
    for cell in cells(config):
        if cell.world != "measured" or cell.name in missing or policy(cell.policy).pad_batches:
            continue
        ratio = _of_cell(config, cell, results)
        if not np.isnan(ratio):
            found[cell.name] = ratio
    return found


def _of_cell(config: Config, cell: Cell, results: Path) -> float:
    path = profile_folder(config, cell.device, results) / "profile_raw.csv"
    try:
        profiled = pd.read_csv(path).set_index(["px", "batch"])["p50_ms"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is no table of a profile: {error}") from error
    tables = [
        read_table(run_folder(run.key, results) / "frames.parquet", COLUMNS).to_pandas()
        for run in runs(config, cell)
    ]
    frames = pd.concat(tables, ignore_index=True)
    took = (frames["decode_ms"] + frames["execute_ms"]).dropna()
    by_batch = took.groupby([frames["dnn_px"], frames["batch"]]).agg(["median", "count"])
    known = by_batch[by_batch["count"] >= FEWEST].join(profiled.rename_axis(["dnn_px", "batch"]))
    known = known.dropna()
    if known.empty:
        return float("nan")
    return float(np.average(known["median"] / known["p50_ms"], weights=known["count"]))
