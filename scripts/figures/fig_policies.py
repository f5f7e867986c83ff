"""Policies side by side: frames missed against accuracy, one point a policy, one panel a trace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jellyfish.errors import DataError
from scripts.figures import pooled, style, tables

_MARKERS = "os^Dv<>pPX*"
_COLORS = (style.BLUE, style.RED, style.GREEN, style.BLACK, style.ORANGE, style.PURPLE, style.SKY)
_LEGEND_COLUMNS = 5


def draw(
    *,
    scores: Path,
    out: Path,
    policies: Sequence[str],
    missing: Sequence[str] = (),
    **setting: Any,
) -> None:
    """Draw one point a policy and trace, pooled over cells and clips, to `out` (.pdf, .png).

    Args:
        scores: scores.parquet of a scenario, one row a run.
        out: where to.
        policies: which to show, in the order of the legend.
        missing: names of cells that the table lacks; the small print names them.
        setting: which world, device, ... to draw, when the table holds several.

    Raises:
        DataError: the table is missing or lacks columns, or has no case that policies share.
    """
    read = tables.read(scores, pooled.COLUMNS)
    free = ("policy", "trace")
    found = tables.one_setting(read, "fig_policies", free=free, **setting)
    rows = pooled.comparable(found, policies)
    if rows.empty:
        raise DataError(f"fig_policies: {scores} has no run that the policies of a trace share")
    shown = [name for name in policies if (rows["policy"] == name).any()]
    traces = list(dict.fromkeys(rows["trace"]))
    values = pooled.by_repetition(rows)
    text = tables.note(rows.drop(columns=list(free)), *pooled.note(rows), *tables.lacking(missing))
    height = 2.35 + 0.14 * (len(shown) // _LEGEND_COLUMNS)
    with style.page(style.TEXT_IN if len(traces) > 1 else style.COLUMN_IN, height, text) as figure:
        panels = figure.subplots(1, len(traces), sharey=True, squeeze=False)[0]
        for i, (axes, trace) in enumerate(zip(panels, traces, strict=True)):
            _panel(axes, values.loc[trace], shown)
            style.letter(axes, i if len(traces) > 1 else None, f"Trace {trace}")
        _finish(figure, panels, shown)
        style.save(figure, out)


def look(index: int) -> dict[str, Any]:
    """Return the marker and colour of policy `index`: no pair of the first 77 is the same."""
    return {"marker": _MARKERS[index % len(_MARKERS)], "color": _COLORS[index % len(_COLORS)]}


def _panel(axes: Axes, values: pd.DataFrame, policies: Sequence[str]) -> None:
    """Draw the policies of one trace; `values` is by policy and repetition."""
    for i, policy in enumerate(policies):
        if policy not in values.index.get_level_values("policy"):
            continue
        mine = values.loc[policy]
        f1, wide = pooled.spread(mine[pooled.F1])
        misses, high = pooled.spread(mine[pooled.MISSES] * 100)
        axes.errorbar(
            f1,
            misses,
            xerr=[[wide[0]], [wide[1]]],
            yerr=[[high[0]], [high[1]]],
            linestyle="",
            markersize=5,
            elinewidth=0.7,
            capsize=1.5,
            clip_on=False,
            zorder=3 + (policy == "jellyfish"),
            **look(i),
        )
    axes.margins(x=0.12)
    axes.set_xlabel("F1")


def _finish(figure: Figure, panels: Sequence[Axes], policies: Sequence[str]) -> None:
    for axes in panels:
        style.miss_axis(axes)
        axes.axhline(1, color=style.GREY, linestyle=":", linewidth=0.8, zorder=1)
    panels[0].set_ylabel("Miss rate (%)")
    panels[0].annotate(
        "better",
        xy=(0.98, 0.04),
        xytext=(0.74, 0.2),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "->", "color": style.GREY, "linewidth": 0.8},
        size=7,
        color=style.GREY,
        ha="right",
        zorder=1,
    )
    for i, policy in enumerate(policies):
        panels[0].plot([], [], linestyle="", markersize=5, label=policy, **look(i))
    columns = min(_LEGEND_COLUMNS if len(panels) > 1 else 3, len(policies))
    figure.legend(loc="outside upper center", ncols=columns)
