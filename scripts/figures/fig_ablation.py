"""From the published policy to ours, one change at a time: what each change earns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jellyfish.errors import DataError
from scripts.figures import pooled, style, tables


def draw(
    *,
    scores: Path,
    out: Path,
    steps: Sequence[tuple[str, str]],
    missing: Sequence[str] = (),
    **setting: Any,
) -> None:
    """Draw miss rate and F1 after each step, one line a trace, to `out` (.pdf, .png).

    Args:
        scores: scores.parquet of a scenario, one row a run.
        out: where to.
        steps: (what changes, the policy with it and all before it), in order; the first is where
            it starts from.
        missing: names of cells that the table lacks; the small print names them.
        setting: which world, device, ... to draw, when the table holds several.

    Raises:
        DataError: the table is missing or lacks columns, or has no case that the steps share.
    """
    read = tables.read(scores, pooled.COLUMNS)
    free = ("policy", "trace")
    found = tables.one_setting(read, "fig_ablation", free=free, **setting)
    rows = pooled.comparable(found, [policy for _, policy in steps])
    if rows.empty:
        raise DataError(f"fig_ablation: {scores} has no run that the steps of a trace share")
    traces = list(dict.fromkeys(rows["trace"]))
    values = pooled.by_repetition(rows)
    text = tables.note(rows.drop(columns=list(free)), *pooled.note(rows), *tables.lacking(missing))
    with style.page(style.TEXT_IN if len(steps) > 5 else style.COLUMN_IN, 3.6, text) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for i, trace in enumerate(traces):
            look, mine = style.line(i).kwargs(), values.loc[trace]
            shift = 0.08 * (i - (len(traces) - 1) / 2)
            _line(upper, mine[pooled.MISSES] * 100, steps, shift, look)
            _line(lower, mine[pooled.F1], steps, shift, look)
            upper.plot([], [], **look, label=f"trace {trace}")
        _finish(figure, upper, lower, [label for label, _ in steps])
        style.save(figure, out)


def _line(
    axes: Axes,
    values: pd.Series[float],
    steps: Sequence[tuple[str, str]],
    shift: float,
    look: dict[str, Any],
) -> None:
    """Draw the means of `values`, by policy and repetition; a step that lacks leaves its place."""
    names = values.index.get_level_values("policy")
    at = [i for i, (_, policy) in enumerate(steps) if policy in names]
    points = [pooled.spread(values[names == steps[i][1]]) for i in at]
    axes.errorbar(
        np.array(at) + shift,
        [mean for mean, _ in points],
        yerr=np.array([around for _, around in points]).T,
        elinewidth=0.7,
        capsize=1.5,
        clip_on=False,
        zorder=3,
        **look,
    )


def _finish(figure: Figure, upper: Axes, lower: Axes, labels: Sequence[str]) -> None:
    style.miss_axis(upper)
    upper.axhline(1, color=style.GREY, linestyle=":", linewidth=0.8, zorder=1)
    upper.set_ylabel("Miss rate (%)")
    style.letter(upper, 0, "Frames missed")
    lower.set_ylabel("F1")
    lower.margins(y=0.15)
    style.letter(lower, 1, "Accuracy over all frames captured")
    told = [label if i == 0 else f"+ {label}" for i, label in enumerate(labels)]
    lower.set_xticks(range(len(told)), told, rotation=25, ha="right", rotation_mode="anchor")
    lower.set_xlim(-0.4, len(told) - 0.6)
    figure.align_ylabels()
    figure.legend(loc="outside upper center", ncols=4)
