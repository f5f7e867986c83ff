"""Figure 9: how long answers take (RTSS 2022, Fig. 9).

The distribution of end-to-end latency, one panel per SLO and frame rate, one line per number of
clients. It counts frames captured, not answered: what a line lacks to 1 at the SLO was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jellyfish.errors import DataError
from jellyfish.records import Outcome
from scripts.figures import style, tables

COLUMNS = ("group", "slo_ms", "fps", "outcome", "e2e_ms")
_POINTS = 1000  # of a line: more make the PDF large and show nothing
_MARK = "mark: p99 of the frames answered (hollow: beyond the SLO)"
_GAP = "what a line lacks to 1 was missed"


def draw(*, frames: Sequence[Path], out: Path, missing: Sequence[str] = (), **setting: Any) -> None:
    """Draw the latencies of all runs whose frames.parquet are `frames` to `out` (.pdf, .png).

    Args:
        frames: one table a run; those of one cell are pooled, mixed cells are left out.
        out: where to.
        missing: names of cells that have no tables; the small print names them.
        setting: which trace, policy, world, ... to draw, when the tables hold several.

    Raises:
        DataError: a table is missing or lacks columns, or what is left is none or several settings.
    """
    everything = tables.read(frames, COLUMNS, categorical=True)
    rows = tables.one_setting(everything, "fig_9", **setting)
    rows = rows[rows["group"].isin([name for name in rows["group"].unique() if name.isdigit()])]
    if rows.empty:
        raise DataError(
            "fig_9: its tables hold mixed cells only; it needs cells of one SLO and fps"
        )
    slos, rates, counts = (
        sorted({float(value) for value in rows[name].unique()})
        for name in ("slo_ms", "fps", "group")
    )
    width = style.TEXT_IN if len(slos) > 1 else style.COLUMN_IN
    height = 0.75 + 1.35 * len(rates)
    text = tables.note(rows, _MARK, _GAP, *tables.lacking(missing))
    with style.page(width, height, text) as figure:
        grid = figure.subplots(len(rates), len(slos), sharey=True, sharex="col", squeeze=False)
        panels = [(fps, slo) for fps in rates for slo in slos]
        for i, (axes, (fps, slo)) in enumerate(zip(grid.flat, panels, strict=True)):
            mine = rows[(rows["slo_ms"] == slo) & (rows["fps"] == fps)]
            _panel(axes, mine, slo, counts)
            style.letter(axes, i if len(panels) > 1 else None, f"SLO {slo:g} ms, {fps:g} frames/s")
        _finish(figure, grid, counts)
        style.save(figure, out)


def distribution(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return latencies (N,) in ms of answered frames, ascending, and the share of all frames
    captured (N,) that were answered within each."""
    answered = rows["outcome"].isin([Outcome.OK, Outcome.LATE])
    latencies = np.sort(rows.loc[answered, "e2e_ms"].to_numpy(float))
    return latencies, np.arange(1, len(latencies) + 1) / max(1, len(rows))


def _panel(axes: Axes, rows: pd.DataFrame, slo: float, counts: list[float]) -> None:
    for i, count in enumerate(counts):
        latencies, share = distribution(rows[rows["group"] == f"{count:g}"])
        if not len(latencies):
            continue
        look = style.line(i)
        thin = np.unique(np.linspace(0, len(latencies) - 1, _POINTS).astype(int))
        axes.plot(
            np.r_[0, latencies[0], latencies[thin]],
            np.r_[0, 0, share[thin]],
            color=look.color,
            linestyle=look.dashes,
        )
        _mark_p99(axes, look, latencies, share, slo)
    axes.set_xticks(np.linspace(0, slo, 4 if slo % 3 == 0 else 5))
    axes.set_xlim(0, slo)
    axes.set_ylim(0, 1.02)


def _mark_p99(
    axes: Axes, look: style.Line, latencies: np.ndarray, share: np.ndarray, slo: float
) -> None:
    """Mark the p99 of the frames answered on their line, with a thin line down to its value."""
    p99 = float(np.percentile(latencies, 99))
    at = min(p99, slo)
    height = float(np.interp(at, latencies, share))
    inside = p99 <= slo
    if inside:
        axes.vlines(at, 0, height, color=look.color, linewidth=0.5, alpha=0.7)
    axes.plot(
        at,
        height,
        look.marker,
        color=look.color,
        markersize=4.5,
        markerfacecolor=look.color if inside else "white",
        clip_on=False,
        zorder=5,
    )


def _finish(figure: Figure, grid: np.ndarray, counts: list[float]) -> None:
    for axes in grid[-1]:
        axes.set_xlabel("End-to-end latency (ms)")
    for axes in grid[:, 0]:
        axes.set_ylabel("Share of frames")
    for i, count in enumerate(counts):
        name = f"{count:g} client{'s' if count != 1 else ''}"
        grid[0, 0].plot([], [], **style.line(i).kwargs(), label=name)
    style.legend_above(figure, *grid[0, 0].get_legend_handles_labels())
