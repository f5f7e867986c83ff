"""How long planning takes, by the size of the problem (RTSS 2022, V).

CPU time and wall time of every solver: median as a line, up to the p99 as a band, and the interval
at which the published scheduler runs; and the same as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from scripts.figures import style, tables

SIZE = ("gpus", "clients")
CLOCKS = {"cpu_ms": "CPU time of a plan (ms)", "wall_ms": "Wall time of a plan (ms)"}
COLUMNS = (*SIZE, *CLOCKS, "seed", "contender", "limit_s", "ended", "machine", "rejected")
QUANTILES = {"p50": 0.5, "p99": 0.99}
LABELS = 8  # of sizes, on an axis


def draw(*, sizes: Sequence[Path], out: Path, interval_s: float) -> None:
    """Draw the times in `sizes` to `out` (.pdf, .png), and write them as .csv.

    Args:
        sizes: the stage's tables, one a size.
        out: where to.
        interval_s: time between two scheduler runs, drawn as a line.

    Raises:
        DataError: a table is missing or lacks columns.
    """
    read = tables.read(sizes, COLUMNS)
    if read.empty:
        raise DataError("fig_sim_timings: its tables have no rows")
    table = times(read)
    loads = sorted(table["per_gpu"].unique())
    height = 0.75 + 2.15 * len(loads)
    with style.page(style.TEXT_IN, height, tables.note(read, *_note(read, table))) as figure:
        grid = figure.subplots(len(loads), len(CLOCKS), sharex="row", sharey=True, squeeze=False)
        panels = [(load, clock) for load in loads for clock in CLOCKS]
        for i, (axes, (load, clock)) in enumerate(zip(grid.flat, panels, strict=True)):
            _panel(axes, table[table["per_gpu"] == load], clock, interval_s)
            style.letter(axes, i, f"{load} clients per GPU")
            axes.set_ylabel(CLOCKS[clock])
            axes.yaxis.set_tick_params(labelleft=True)
        _finish(figure, grid, table)
        style.save(figure, out)
    with whole_file(out.with_suffix(".csv")) as temporary:
        table.drop(columns="per_gpu").to_csv(temporary, index=False, float_format="%.4g")


def times(read: pd.DataFrame) -> pd.DataFrame:
    """Return one row a size and solver: how many instances, and quantiles of both times in ms.

    Where an instance ran into the solver's time limit its true time is longer than its row says: a
    quantile that such a row decides is NaN.
    """
    found = []
    for _, rows in read.groupby([*SIZE, "contender"], sort=False):
        first = rows.iloc[0]
        row = {
            "gpus": first["gpus"],
            "clients": first["clients"],
            "per_gpu": first["clients"] // first["gpus"],
            "solver": first["contender"],
            "instances": len(rows),
            "rejected": first["rejected"],
            "limit_s": first["limit_s"],
            "ended": int(rows["ended"].sum()),
        }
        for clock in CLOCKS:
            known = rows[clock].where(rows["ended"], np.inf)
            for name, share in QUANTILES.items():
                value = float(known.quantile(share, interpolation="higher"))
                row[_column(clock, name)] = value if np.isfinite(value) else np.nan
        found.append(row)
    return pd.DataFrame(found).sort_values(list(SIZE), kind="stable", ignore_index=True)


def _column(clock: str, quantile: str) -> str:
    return f"{clock.removesuffix('_ms')}_{quantile}_ms"


def _note(read: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    whole = table.loc[table["ended"] == table["instances"], "instances"]
    parts = [f"lines: medians of {whole.max() if len(whole) else 0} instances; bands: up to p99"]
    if table["ended"].lt(table["instances"]).any():
        parts.append(
            "crosses: half the instances or more took more CPU time than the solver's limit"
        )
    return [*parts, f"one core of {read['machine'].iloc[0]}"]


def _panel(axes: Axes, table: pd.DataFrame, clock: str, interval_s: float) -> None:
    """Draw one clock's times, over sizes of one load."""
    for i, solver in enumerate(dict.fromkeys(table["solver"])):
        mine = table[table["solver"] == solver]
        look, p50 = style.line(i), mine[_column(clock, "p50")]
        # Where the slowest did not end, the band is open: it reaches at least the limit.
        p99 = mine[_column(clock, "p99")].fillna(mine["limit_s"] * 1000)
        axes.fill_between(mine["gpus"], p50, p99, color=look.color, alpha=0.18, linewidth=0)
        axes.plot(mine["gpus"], p50, **look.kwargs(), label=solver)
        beyond = mine[p50.isna()]
        axes.plot(
            beyond["gpus"],
            beyond["limit_s"] * 1000,
            linestyle="",
            marker="x",
            color=look.color,
            markersize=4.5,
        )
    axes.axhline(
        interval_s * 1000,
        color=style.GREY,
        linestyle="--",
        linewidth=0.9,
        zorder=1,
        label=f"{interval_s:g} s, between plans",
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")


def _finish(figure: Figure, grid: np.ndarray, table: pd.DataFrame) -> None:
    for axes, load in zip(grid, sorted(table["per_gpu"].unique()), strict=True):
        gpus = sorted(table.loc[table["per_gpu"] == load, "gpus"].unique())
        shown = gpus[:: -(-len(gpus) // LABELS)]
        for each in axes:
            each.xaxis.set_major_locator(FixedLocator(shown))
            each.xaxis.set_minor_locator(NullLocator())
            each.set_xticklabels([f"{g}\n{g * load}" for g in shown])
            each.set_xlabel("GPUs, and clients below")
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
