"""Figure 8: accuracy and missed deadlines as clients are added (RTSS 2022, Fig. 8).

F1 over all frames captured and miss rate against the number of clients, one column per SLO, one
line per frame rate; mixed cells, whose clients differ, in a column of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, ScalarFormatter

from jellyfish.files.profiles import read_profile
from scripts.figures import style, tables

F1, MISSES = "f1_strict_all", "miss_rate"
COLUMNS = ("run", "group", "slo", "fps", F1, MISSES)
_TARGET = 1.0  # % of misses: deadlines met at the 99th percentile, the paper's headline
_MIXED = "var"


def draw(
    *, scores: Path, profile: Path, out: Path, missing: Sequence[str] = (), **setting: Any
) -> None:
    """Draw the runs of one setting in `scores` to `out` (.pdf, .png).

    Args:
        scores: scores.parquet of a scenario, one row a run.
        profile: profile.json that they were served with, for the smallest DNN's accuracy.
        out: where to.
        missing: names of cells that the table lacks; the small print names them.
        setting: which trace, policy, world, ... to draw, when the table holds several.

    Raises:
        DataError: a table is missing or lacks columns, or what is left is none or several settings.
    """
    rows = tables.one_setting(tables.read(scores, COLUMNS), "fig_8", **setting)
    zoo = read_profile(profile)
    slos, rates = (_ordered(rows[name]) for name in ("slo", "fps"))
    runs = rows.groupby(["group", "slo", "fps"])["run"].nunique().max()
    spread = [f"mean of up to {runs} runs, bars: least to most"] if runs > 1 else []
    text = tables.note(
        rows, "F1 strict, over all frames captured", *spread, *tables.lacking(missing)
    )
    with style.page(style.TEXT_IN if len(slos) > 1 else style.COLUMN_IN, 3.1, text) as figure:
        widths = [0.4 if slo == _MIXED and len(slos) > 1 else 1 for slo in slos]
        grid = figure.subplots(
            2, len(slos), sharex="col", sharey="row", squeeze=False, width_ratios=widths
        )
        for column, slo in enumerate(slos):
            mine = rows[rows["slo"].map(_name) == slo]
            _panel(grid[0, column], mine, F1, rates, 1)
            _panel(grid[1, column], mine, MISSES, rates, 100)
            title = "Mixed clients" if slo == _MIXED else f"SLO {slo} ms"
            style.letter(grid[0, column], column if len(slos) > 1 else None, title)
        _finish(figure, grid, int(zoo.input_px[0]), float(zoo.accuracy[0]))
        _legend(figure, grid[0, 0], rates)
        style.save(figure, out)


def _name(value: Any) -> str:
    """Return an SLO or rate as it is shown: `100`, `7.5` or `var`."""
    return _MIXED if str(value) == _MIXED else f"{float(value):g}"


def _ordered(values: pd.Series[Any]) -> list[str]:
    """Return the names of all `values`, each once, by size, mixed ones last."""
    names = {_name(value) for value in values}
    return sorted(names, key=lambda name: float("inf") if name == _MIXED else float(name))


def _look(rate: str, rates: list[str]) -> dict[str, Any]:
    """Return the look of a rate; mixed cells are points: there is no line between them."""
    if rate == _MIXED:
        return {"color": style.BLACK, "marker": "*", "markersize": 5, "linestyle": ""}
    return style.line(rates.index(rate)).kwargs()


def _panel(axes: Axes, rows: pd.DataFrame, column: str, rates: list[str], scale: float) -> None:
    groups = sorted(set(rows["group"].astype(str)), key=lambda name: (len(name), name))
    at = rows["group"].astype(str).map(groups.index)
    names = rows["fps"].map(_name)
    here = [rate for rate in rates if (names == rate).any()]
    for i, rate in enumerate(here):
        mine = names == rate
        values = (rows.loc[mine, column] * scale).groupby(at[mine])
        mean, least, most = values.mean(), values.min(), values.max()
        axes.errorbar(
            mean.index + 0.06 * (i - (len(here) - 1) / 2),
            mean,
            yerr=np.array([mean - least, most - mean]).clip(min=0),
            capsize=2,
            elinewidth=0.7,
            clip_on=False,
            zorder=3,
            **_look(rate, rates),
        )
    axes.set_xticks(range(len(groups)), [name.replace("_var", "").rstrip("_") for name in groups])
    axes.set_xlim(-0.35, len(groups) - 0.65)


def _finish(figure: Figure, grid: np.ndarray, px: int, smallest: float) -> None:
    for axes in grid[0]:
        axes.axhline(smallest, color=style.GREY, linestyle="--", linewidth=0.8, zorder=1)
    for axes in grid[1]:
        axes.axhline(_TARGET, color=style.GREY, linestyle=":", linewidth=0.8, zorder=1)
        axes.set_yscale("symlog", linthresh=1, linscale=0.6)
        axes.yaxis.set_major_locator(FixedLocator([0, 1, 10, 100]))
        axes.yaxis.set_minor_locator(FixedLocator([0.5, 2, 5, 20, 50]))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set_ylim(0, 100)
        axes.set_xlabel("Clients")
    grid[0, 0].set_ylim(0, 1)
    grid[0, 0].set_ylabel("F1")
    grid[1, 0].set_ylabel("Miss rate (%)")
    grid[0, 0].plot([], [], "--", color=style.GREY, linewidth=0.8, label=f"the {px}-px DNN alone")
    grid[0, 0].plot([], [], ":", color=style.GREY, linewidth=0.8, label="1 % missed")
    figure.align_ylabels()


def _legend(figure: Figure, axes: Axes, rates: list[str]) -> None:
    for rate in rates:
        name = "mixed SLO and rate" if rate == _MIXED else f"{rate} frames/s"
        axes.plot([], [], **_look(rate, rates), label=name)
    handles, names = axes.get_legend_handles_labels()
    order = [*range(2, len(names)), 0, 1]
    style.legend_above(figure, [handles[i] for i in order], [names[i] for i in order])
