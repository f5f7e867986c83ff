"""Figure 6: what each DNN of the zoo earns and costs (RTSS 2022, Fig. 6).

Accuracy against input size; p99 latency and throughput against batch size, one line a DNN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from jellyfish.errors import DataError
from jellyfish.files.profiles import read_profile
from jellyfish.profile import Profile
from scripts.figures import style

RAW = ("px", "batch", "batches", "p50_ms", "p99_ms", "p99_low_ms", "p99_high_ms")
_SURE = 500  # a p99 from fewer batches is shown with its interval
_MARKERS = "os^DvPX<>p"


def draw(*, profile: Path, raw: Path | None, out: Path, latencies: str) -> None:
    """Draw the profile in `profile` and its measured latencies in `raw` to `out` (.pdf, .png).

    Args:
        profile: profile.json of a zoo on a device.
        raw: profile_raw.csv beside it, one row a DNN and batch size (columns RAW); None for an
            emulated device, whose latencies were not measured.
        latencies: what the latencies were measured on, such as `cpu: onnxruntime`.

    Raises:
        DataError: a table is missing or lacks columns; the text names it.
    """
    zoo = read_profile(profile)
    rows = pd.DataFrame(columns=list(RAW), dtype=float) if raw is None else read_raw(raw)
    with style.page(style.TEXT_IN, 2.45, " · ".join(_note(rows, latencies))) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.12, 1.12))
        colors = style.size_colors(zoo.dnns)
        _accuracy(left, zoo, colors)
        _latency(middle, zoo, rows, colors)
        _throughput(right, zoo, rows, colors)
        style.save(figure, out)


def _note(rows: pd.DataFrame, latencies: str) -> list[str]:
    if rows.empty:
        return [f"not measured: latencies of {latencies}", "p99 of its model"]
    fewest = int(rows["batches"].min())
    sure = [] if fewest >= _SURE else ["bars: 95 % interval of the p99"]
    return [
        f"measured, latencies of {latencies}",
        f"p99 of at least {fewest} batches",
        *sure,
        "lines: made monotone for the scheduler, marks: as measured",
    ]


def read_raw(path: Path) -> pd.DataFrame:
    """Return the measured latencies in `path`.

    Raises:
        DataError: the file is missing, empty, or lacks a column of RAW.
    """
    try:
        rows = pd.read_csv(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is no CSV table: {error}") from error
    lacking = [name for name in RAW if name not in rows]
    if lacking or rows.empty:
        raise DataError(f"{path} has no rows or lacks the columns {', '.join(lacking)}")
    return rows


def _accuracy(axes: Axes, zoo: Profile, colors: list[Any]) -> None:
    axes.plot(zoo.input_px, zoo.accuracy, color=style.GREY, linewidth=0.8, zorder=1)
    for m in range(zoo.dnns):
        axes.plot(zoo.input_px[m], zoo.accuracy[m], _MARKERS[m % 10], color=colors[m], markersize=3)
    axes.set_ylim(0, max(1.0, float(zoo.accuracy.max())) * 1.02)
    step = max(1, (zoo.dnns - 1) // 5)
    axes.set_xticks([int(px) for px in zoo.input_px[::step]])
    axes.set_xlabel("Input size (px)")
    axes.set_ylabel("F1 against the reference DNN")
    style.letter(axes, 0, "Accuracy")


def _latency(axes: Axes, zoo: Profile, rows: pd.DataFrame, colors: list[Any]) -> None:
    batches = range(1, zoo.max_batch + 1)
    for m, px in enumerate(zoo.input_px):
        mine = rows[rows["px"] == px]
        axes.plot(batches, zoo.latency_ms[m], color=colors[m])
        unsure = mine[mine["batches"] < _SURE]
        below = (unsure["p99_ms"] - unsure["p99_low_ms"]).clip(lower=0)
        above = (unsure["p99_high_ms"] - unsure["p99_ms"]).clip(lower=0)
        axes.errorbar(
            unsure["batch"],
            unsure["p99_ms"],
            yerr=[below, above],
            fmt="none",
            ecolor=colors[m],
            elinewidth=0.7,
            capsize=1.5,
        )
        axes.plot(mine["batch"], mine["p99_ms"], _MARKERS[m % 10], color=colors[m], markersize=3)
    axes.set_ylabel("p99 latency (ms)")
    _finish(axes, zoo, [float(v) for v in zoo.latency_ms[:, -1]])
    style.letter(axes, 1, "Latency of a batch")


def _throughput(axes: Axes, zoo: Profile, rows: pd.DataFrame, colors: list[Any]) -> None:
    batches = range(1, zoo.max_batch + 1)
    for m, px in enumerate(zoo.input_px):
        mine = rows[rows["px"] == px]
        axes.plot(batches, zoo.throughput[m], color=colors[m])
        axes.plot(
            mine["batch"],
            mine["batch"] * 1000 / mine["p99_ms"],
            _MARKERS[m % 10],
            color=colors[m],
            markersize=3,
        )
    axes.set_ylabel("Throughput (frames/s)")
    _finish(axes, zoo, [float(v) for v in zoo.throughput[:, -1]])
    style.letter(axes, 2, "Throughput at that latency")


def _finish(axes: Axes, zoo: Profile, ends: list[float]) -> None:
    """Set the scales and name the lines at their right ends, where they do not overlap."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    margin = 0.06 * max(1, zoo.max_batch - 1)
    axes.set_xlim(1 - margin, zoo.max_batch + margin)
    axes.set_xticks(range(1, zoo.max_batch + 1))
    axes.set_xlabel("Batch size")
    low, high = axes.get_ylim()
    for m in _apart(ends, (high / low) ** (1 / 15)):  # 15 labels fit one above the other
        axes.annotate(
            f"{int(zoo.input_px[m])} px",
            (zoo.max_batch, ends[m]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            size=6,
            annotation_clip=False,
        )


def _apart(ends: list[float], factor: float) -> list[int]:
    """Return the first and last index, and those between whose ends stand `factor` apart."""
    chosen = [len(ends) - 1] if len(ends) == 1 else [len(ends) - 1, 0]
    for m in range(len(ends) - 2, 0, -1):
        if all(max(ends[m] / ends[k], ends[k] / ends[m]) > factor for k in chosen):
            chosen.append(m)
    return chosen
