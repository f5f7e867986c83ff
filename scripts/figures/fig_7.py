"""Figure 7: how the service follows the network (RTSS 2022, Fig. 7).

Over the frames of one run, for its first two clients: the DNN used for each frame, with frames
that were not answered in time marked, and the true against the estimated bandwidth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jellyfish.files.profiles import read_profile
from jellyfish.records import Outcome
from scripts.figures import style, tables

COLUMNS = (
    "client",
    "frame",
    "fps",
    "slo_ms",
    "outcome",
    "px_sent",
    "dnn_px",
    "bandwidth_est_kbps",
    "bandwidth_true_kbps",
)
# What is shown of a frame that was not answered in time: marker, colour, name.
_MISSES = {
    Outcome.DROPPED: ("x", style.RED, "dropped by the server"),
    Outcome.LATE: ("2", style.PURPLE, "late"),
    Outcome.REJECTED: ("_", style.ORANGE, "not sent"),
    Outcome.LOST: ("1", style.BLACK, "lost"),
    Outcome.ERROR: ("*", style.BLACK, "failed"),
}


def draw(*, frames: Path, profile: Path, out: Path, clients: int = 2) -> None:
    """Draw the first `clients` clients of the run whose frames.parquet is `frames` to `out`.

    Args:
        frames: frames.parquet of one run.
        profile: profile.json that the run was served with; its sizes are the axis.
        out: where to; .pdf and .png are written.
        clients: how many clients to show, one column each.

    Raises:
        DataError: a table is missing, lacks columns or rows, or holds more than one setting.
    """
    rows = tables.one_setting(tables.read(frames, COLUMNS), "fig_7")
    sizes = [int(px) for px in read_profile(profile).input_px]
    shown = sorted(rows["client"].unique())[:clients]
    drawn = rows[rows["client"].isin(shown)]
    kinds = [kind for kind in _MISSES if (drawn["outcome"] == kind).any()]
    with style.page(style.TEXT_IN, 3.0, _note(rows)) as figure:
        grid = figure.subplots(
            2, len(shown), sharex="col", sharey="row", squeeze=False, height_ratios=(1.35, 1)
        )
        for column, client in enumerate(shown):
            mine = rows[rows["client"] == client].sort_values("frame")
            _dnns(grid[0, column], mine, sizes, kinds)
            _bandwidth(grid[1, column], mine)
            missed = 100 * float((mine["outcome"] != Outcome.OK).mean())
            title = f"Client {client + 1}: {missed:.1f} % missed"
            style.letter(grid[0, column], column if len(shown) > 1 else None, title)
        _label(grid, drawn)
        _legend(figure, grid)
        figure.align_ylabels()
        style.save(figure, out)


def _note(rows: pd.DataFrame) -> str:
    count, slo, fps = rows["client"].nunique(), rows["slo_ms"].iloc[0], rows["fps"].iloc[0]
    clients = f"{count} client{'s' if count != 1 else ''}"
    return tables.note(rows, f"{clients}, SLO {slo:g} ms, {fps:g} frames/s")


def _dnns(axes: Axes, rows: pd.DataFrame, sizes: list[int], kinds: list[Outcome]) -> None:
    """Draw the DNN of every frame; below them, in a band with a row a kind, those that missed."""
    used = rows["dnn_px"].where(rows["dnn_px"] > 0).astype(float)
    axes.plot(
        rows["frame"],
        used.ffill(),
        color=style.SKY,
        linewidth=0.8,
        drawstyle="steps-mid",
        zorder=2,
    )
    axes.plot(
        rows["frame"],
        used,
        ".",
        color=style.BLUE,
        markersize=2.5,
        zorder=3,
        label="DNN used",
    )
    step = sizes[1] - sizes[0] if len(sizes) > 1 else 32
    band = max(1, len(kinds))
    bottom = sizes[0] - (band + 1.2) * step * 1.3
    axes.axhspan(bottom, sizes[0] - step * 0.8, color="#F2F2F2", zorder=0, linewidth=0)
    for i, kind in enumerate(kinds):
        marker, color, name = _MISSES[kind]
        at = rows.loc[rows["outcome"] == kind, "frame"]
        y = sizes[0] - (i + 1.45) * step * 1.3
        axes.plot(at, np.full(len(at), y), marker, color=color, markersize=3.5, label=name)
    axes.set_ylim(bottom, sizes[-1] + step)
    ticks = sizes[:: max(1, (len(sizes) - 1) // 5)]
    middle = (bottom + sizes[0] - step * 0.8) / 2
    axes.set_yticks([middle, *ticks], ["missed", *(str(px) for px in ticks)])


def _bandwidth(axes: Axes, rows: pd.DataFrame) -> None:
    true, estimate = (rows[f"bandwidth_{kind}_kbps"] / 1000 for kind in ("true", "est"))
    axes.plot(rows["frame"], estimate, color=style.RED, linewidth=0.9, label="estimate")
    if true.notna().any():
        axes.plot(
            rows["frame"],
            true,
            color=style.BLACK,
            linestyle=(0, (4, 1.5)),
            drawstyle="steps-post",
            label="true bandwidth",
        )


def _label(grid: np.ndarray, rows: pd.DataFrame) -> None:
    """Name the axes once, and cut the estimate's first guess (100 Mbit/s) off."""
    grid[0, 0].set_ylabel("DNN (px)")
    grid[1, 0].set_ylabel("Bandwidth (Mbit/s)")
    top = rows["bandwidth_true_kbps"].max() * 1.7
    if not np.isfinite(top):
        top = rows["bandwidth_est_kbps"].quantile(0.95) * 1.2
    grid[1, 0].set_ylim(0, top / 1000 if np.isfinite(top) else 1)
    for axes in grid[1]:
        axes.set_xlabel("Frame")
        axes.margins(x=0.01)


def _legend(figure: Figure, grid: np.ndarray) -> None:
    """Put one legend above all panels: every series that any of them shows, once."""
    shown: dict[str, Artist] = {}
    for axes in grid.flat:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(name, handle)
    style.legend_above(figure, list(shown.values()), list(shown))
