# Which cells tables and figures are made of: all, or with allow_missing those that are finished.
from functools import cache

ALLOW_MISSING = str(config.get("allow_missing")).lower() == "true"


@cache
def is_finished(name):
    """Whether a cell's index lists just the runs that the config asks for, all in their place."""
    cell = CELLS[name]
    index, wanted = Path(cell_index(cell)), {run.key for run in grid.runs(config, cell)}
    here = index.is_file() and indexed_runs(index) == wanted
    return here and all(Path(path).is_file() for path in frames_of([cell]))


def drawn(cells):
    """Those of `cells` that are drawn: all; with allow_missing, those that are finished."""
    return [cell for cell in cells if not ALLOW_MISSING or is_finished(cell.name)]


def missing(cells):
    """Names of the cells that are not drawn."""
    return [cell.name for cell in cells if ALLOW_MISSING and not is_finished(cell.name)]


def tables_of(cells):
    """What a figure of `cells` waits for; with allow_missing, nothing that a job would make."""
    return frames_of(drawn(cells)) if ALLOW_MISSING else [cell_index(cell) for cell in cells]


def missing_table():
    """missing.csv, kept in step with the figures once there is one."""
    path = f"results/{SCENARIO}/missing.csv"
    return [path] if ALLOW_MISSING or Path(path).is_file() else []


def simulated_clips():
    """Clips whose stored detections are what came back."""
    there = [cell for cell in drawn(CELLS.values()) if cell.world == "simulated"]
    return sorted({clip for cell in there for clip in cell.clips})
