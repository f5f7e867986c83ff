"""How close the solvers come to the proven optimum, by the size of the problem (RTSS 2022, V).

One panel a number of GPUs, one group a number of clients per GPU, one box a solver over instances;
and the same as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from scripts.figures import style, tables

YARDSTICK = "optimum"
CASE = ("gpus", "clients", "seed")
COLUMNS = (
    *CASE,
    *("solver", "contender", "effectiveness", "accuracy", "effectiveness_bound", "accuracy_bound"),
    *("ended", "rejected"),
)
OPTIMAL = 1e-6  # a ratio that lacks less than this to 1 is the optimum
FILLS = ("#FFFFFF", "#BBD9EA", style.BLUE, "#F5D7A1", style.RED, "#BFE3D6")
HATCHES = ("", "", "", "////", "", "....")


def draw(*, sizes: Sequence[Path], out: Path) -> None:
    """Draw the ratios of accuracy in `sizes` to `out` (.pdf, .png); write statistics as .csv.

    Args:
        sizes: the stage's tables, one a size.
        out: where to.

    Raises:
        DataError: a table is missing or lacks columns, or holds no solver beside the optimum.
    """
    read = tables.read(sizes, COLUMNS)
    rows = ratios(read)
    if rows.empty:
        raise DataError("fig_sim_quality: its tables hold no solver beside the optimum")
    gpus = sorted(rows["gpus"].unique())
    solvers = list(dict.fromkeys(rows["contender"]))
    with style.page(style.TEXT_IN, 2.5, tables.note(read, *_note(rows))) as figure:
        panels = figure.subplots(1, len(gpus), sharey=True, squeeze=False)[0]
        for i, (axes, count) in enumerate(zip(panels, gpus, strict=True)):
            _panel(axes, rows[rows["gpus"] == count], solvers)
            style.letter(axes, i if len(gpus) > 1 else None, f"{count} GPUs")
        _finish(figure, panels, solvers)
        style.save(figure, out)
    with whole_file(out.with_suffix(".csv")) as temporary:
        statistics(rows).to_csv(temporary, index=False, float_format="%.6g")


def ratios(read: pd.DataFrame) -> pd.DataFrame:
    """Return one row an instance and solver: what its plan reaches of what any plan can."""
    proofs = read[read["contender"] == YARDSTICK].set_index(list(CASE))
    rows = read[read["contender"] != YARDSTICK].copy()
    best = proofs.loc[pd.MultiIndex.from_frame(rows[list(CASE)])]
    rows["per_gpu"] = rows["clients"] // rows["gpus"]
    rows["proven"] = best["ended"].to_numpy()
    rows["effectiveness_ratio"] = rows["effectiveness"] / best["effectiveness_bound"].to_numpy()
    rows["ratio"] = rows["accuracy"] / best["accuracy_bound"].to_numpy()
    return rows


def statistics(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row a size and solver: mean and least of the ratios, and how many are optimal."""
    groups = rows.groupby(["gpus", "clients", "contender"], sort=False)
    found = groups.agg(
        instances=("ratio", "size"),
        rejected=("rejected", "first"),
        proven=("proven", "sum"),
        ratio_mean=("ratio", "mean"),
        ratio_p5=("ratio", lambda values: values.quantile(0.05)),
        ratio_min=("ratio", "min"),
        optimal=("ratio", lambda values: (values > 1 - OPTIMAL).mean()),
        effectiveness_ratio_min=("effectiveness_ratio", "min"),
    )
    return found.reset_index().sort_values(["gpus", "clients"], kind="stable")


def _note(rows: pd.DataFrame) -> list[str]:
    instances = rows.drop_duplicates(list(CASE))
    counts = instances.groupby(["gpus", "clients"]).size()
    unproven = int((~instances["proven"]).sum())
    short = rows[rows["effectiveness_ratio"] < 1 - OPTIMAL]
    yardstick = f"{unproven} of {len(instances)} against a bound: no proof in time"
    return [
        f"boxes: quartiles and median of {counts.min()} instances, whiskers to the least and most",
        "white dots: means",
        yardstick if unproven else "every optimum proven",
        f"fewer clients mapped than possible in {len(short)} of {len(rows)} plans"
        if len(short)
        else "all plans map as many clients as any can",
    ]


def _panel(axes: Axes, rows: pd.DataFrame, solvers: Sequence[str]) -> None:
    """Draw the sizes of one number of GPUs."""
    groups = sorted(rows["per_gpu"].unique())
    wide = 0.84 / len(solvers)
    for i, solver in enumerate(solvers):
        mine = rows[rows["contender"] == solver]
        values = [mine.loc[mine["per_gpu"] == n, "ratio"].to_numpy() for n in groups]
        at = np.arange(len(groups)) + wide * (i - (len(solvers) - 1) / 2)
        axes.boxplot(
            values,
            positions=at,
            widths=wide * 0.8,
            whis=(0, 100),
            showmeans=True,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": _fill(i), "hatch": _hatch(i), "linewidth": 0.6},
            whiskerprops={"linewidth": 0.6},
            capprops={"linewidth": 0.6},
            medianprops={"color": style.BLACK, "linewidth": 1.0},
            meanprops={
                "marker": "o",
                "markersize": 2.2,
                "markerfacecolor": "white",
                "markeredgecolor": style.BLACK,
                "markeredgewidth": 0.5,
            },
        )
    axes.axhline(1, color=style.GREY, linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xticks(range(len(groups)), [str(n) for n in groups])
    axes.set_xlim(-0.55, len(groups) - 0.45)
    axes.grid(visible=False, axis="x")


def _fill(index: int) -> str:
    return FILLS[index % len(FILLS)]


def _hatch(index: int) -> str:
    return HATCHES[index % len(HATCHES)]


def _finish(figure: Figure, panels: Sequence[Axes], solvers: Sequence[str]) -> None:
    panels[0].set_ylabel("Accuracy / optimum")
    panels[0].margins(y=0.04)
    for axes in panels:
        axes.set_xlabel("Clients per GPU")
    handles = [
        Patch(facecolor=_fill(i), hatch=_hatch(i), edgecolor=style.BLACK, linewidth=0.6, label=name)
        for i, name in enumerate(solvers)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(solvers))
