"""Whether virtual time tells the truth: the same cells measured in real time and simulated.

One column a kind of device, one row a quantity, one place a cell; and the same as a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from scripts.figures import style, tables


@dataclass(frozen=True)
class Quantity:
    """A column of scores, as it is shown: its factor, and the gap between worlds to stay within."""

    column: str
    name: str
    label: str
    unit: str
    within: float
    scale: float = 1.0


QUANTITIES = (
    Quantity("miss_rate", "miss_pct", "Miss rate (%)", " points", 1, 100),
    Quantity("f1_strict_all", "f1", "F1", "", 0.02),
    Quantity("e2e_p50_ms", "p50_ms", "p50 latency (ms)", " ms", 3),
    Quantity("e2e_p99_ms", "p99_ms", "p99 latency (ms)", " ms", 10),
)
CASE = ("trace", "policy", "group", "slo", "fps")
COLUMNS = ("cell", *CASE, "latencies", "frames", "disturbed", *(q.column for q in QUANTITIES))
WORLDS = ("measured", "simulated")
KINDS = {"emulated": "Emulated device", "real": "The real DNN"}


def draw(
    *, scores: Path, pairs: Sequence[Mapping[str, str]], out: Path, missing: Sequence[str] = ()
) -> None:
    """Draw the cells of `pairs` in both worlds to `out` (.pdf, .png), and write them as .csv.

    Args:
        scores: scores.parquet of a scenario, one row a run.
        pairs: a pair: `kind` (one of KINDS: what the measured cell ran on) and the names of the
            cells `measured` and `simulated`. A pair whose cells the table lacks is left out.
        out: where to.
        missing: names of cells that the table lacks; the small print names them.

    Raises:
        DataError: the table is missing or lacks columns, or holds no pair.
    """
    rows = tables.read(scores, COLUMNS)
    table = compared(rows, pairs)
    if table.empty:
        raise DataError(f"fig_agreement: {scores} has no cell in both worlds")
    kinds = [kind for kind in KINDS if (table["kind"] == kind).any()]
    counts = [int((table["kind"] == kind).sum()) for kind in kinds]
    with style.page(style.TEXT_IN, 6.4, " · ".join(_note(table, missing))) as figure:
        grid = figure.subplots(
            len(QUANTITIES),
            len(kinds),
            sharex="col",
            squeeze=False,
            width_ratios=[n + 2 for n in counts],
        )
        for column, kind in enumerate(kinds):
            for axes, quantity in zip(grid[:, column], QUANTITIES, strict=True):
                _panel(axes, table[table["kind"] == kind], quantity)
            device = table.loc[table["kind"] == kind, "latencies"].iloc[0]
            style.letter(
                grid[0, column],
                column if len(kinds) > 1 else None,
                f"{KINDS[kind]} ({device})\n{grid[0, column].get_title()}",
            )
        _finish(figure, grid)
        style.save(figure, out)
    with whole_file(out.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")


def compared(rows: pd.DataFrame, pairs: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Return one row a pair: a quantity's median over runs, least and most, in each world."""
    found = []
    for pair in pairs:
        parts = {world: rows[rows["cell"] == pair[world]] for world in WORLDS}
        if any(part.empty for part in parts.values()):
            continue
        first = parts["measured"].iloc[0]
        row: dict[str, Any] = {"kind": pair["kind"], **{name: first[name] for name in CASE}}
        row["latencies"] = first["latencies"]
        row |= {f"runs_{world}": len(part) for world, part in parts.items()}
        watched = parts["measured"]["disturbed"].dropna()
        row |= {"runs_watched": len(watched), "runs_disturbed": int(watched.sum())}
        row["frames"] = int(parts["measured"]["frames"].min())
        for q in QUANTITIES:
            for world, part in parts.items():
                values = part[q.column] * q.scale
                row[f"{q.name}_{world}"] = values.median()
                row[f"{q.name}_{world}_least"] = values.min()
                row[f"{q.name}_{world}_most"] = values.max()
            row[f"{q.name}_gap"] = row[f"{q.name}_simulated"] - row[f"{q.name}_measured"]
            row[f"{q.name}_within"] = abs(row[f"{q.name}_gap"]) <= q.within
        found.append(row)
    return pd.DataFrame(found)


def _note(table: pd.DataFrame, missing: Sequence[str]) -> list[str]:
    runs = f"{table['runs_measured'].min()} measured and {table['runs_simulated'].min()} simulated"
    disturbed, watched = (int(table[f"runs_{name}"].sum()) for name in ("disturbed", "watched"))
    missing_some = int(table["miss_pct_measured"].between(1, 20).sum())
    return [
        f"medians of {runs} runs or more, bars: least to most",
        f"{int(table['frames'].min())} frames a run or more",
        f"1 to 20 % misses measured in {missing_some} of {len(table)} cells",
        f"{disturbed} of {watched} watched runs disturbed",
        "grey: the gap allowed",
        "F1 strict, over all frames captured",
        *tables.lacking(missing),
    ]


def _panel(axes: Axes, table: pd.DataFrame, quantity: Quantity) -> None:
    at = np.arange(len(table))
    middle = table[f"{quantity.name}_measured"].to_numpy(float)
    axes.bar(at, 2 * quantity.within, 0.72, middle - quantity.within, color="#E4E4E4", zorder=1)
    looks: dict[str, dict[str, Any]] = {
        "measured": {"color": style.BLACK, "marker": "o", "markerfacecolor": "white"},
        "simulated": {"color": style.RED, "marker": "X"},
    }
    for world, shift in zip(WORLDS, (-0.14, 0.14), strict=True):
        name = f"{quantity.name}_{world}"
        values, least, most = (
            table[f"{name}{end}"].to_numpy(float) for end in ("", "_least", "_most")
        )
        axes.errorbar(
            at + shift,
            values,
            yerr=np.array([values - least, most - values]).clip(min=0),
            linestyle="",
            markersize=4,
            elinewidth=0.7,
            capsize=1.5,
            clip_on=False,
            zorder=3,
            label=world,
            **looks[world],
        )
    worst = float(table[f"{quantity.name}_gap"].abs().max())
    axes.set_title(f"largest gap {worst:.2g}{quantity.unit} of {quantity.within:g} allowed")
    axes.set_xticks(at, [_cell_name(row, table) for _, row in table.iterrows()], rotation=90)
    axes.set_xlim(-0.6, len(table) - 0.4)


def _cell_name(row: pd.Series[Any], table: pd.DataFrame) -> str:
    """Return a cell's name on the axis, with its trace and policy where these differ."""
    differing = [str(row[name]) for name in ("trace", "policy") if table[name].nunique() > 1]
    mixed = row["fps"] == "var"  # such a cell's name says it all
    clients = str(row["group"]) if mixed else f"{row['group']} × {row['fps']} fps"
    return ", ".join([clients, *([] if mixed else [f"{row['slo']} ms"]), *differing])


def _finish(figure: Figure, grid: np.ndarray) -> None:
    for axes, quantity in zip(grid[:, 0], QUANTITIES, strict=True):
        axes.set_ylabel(quantity.label)
    for axes in grid[0]:
        axes.set_ylim(bottom=0)
    figure.align_ylabels()
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
