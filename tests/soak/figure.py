"""One figure of a soak: the faults, frames in time, and what the processes hold and write."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scripts.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    TEXT_IN,
    letter,
    page,
    save,
)
from tests.soak.checks import Frames, Struck
from tests.soak.faults import party
from tests.soak.watching import Sample

PARTIES = {  # what is hit, and how it is called and drawn, from the bottom up
    "client": ("hostile clients", GREEN),
    "link": ("a client's link", SKY),
    "planner": ("planner", PURPLE),
    "gpu": ("workers", ORANGE),
    "server": ("server, its disk", RED),
}
HEIGHT_IN = 7.4
PANELS = ("faults", "in time", "memory", "files", "tasks", "written")
TITLES = (
    "faults: whom they hit",
    "frames of the honest clients in time (%)",
    "resident memory (MB)",
    "open files",
    "asyncio tasks (lines) and threads (dots)",
    "written in all (kB)",
)
FRAMES_S = {600.0: 1.0, float("inf"): 2.0}  # of frames to a step, up to that length


def draw(
    out: Path,
    samples: Sequence[Sample],
    struck: Sequence[Struck],
    frames: Frames,
    span: tuple[float, float],
    violated: Sequence[float],
    note: str,
) -> list[Path]:
    """Write the figure; return its paths.

    Args:
        violated: when something did not hold; NaN where that was at no time in particular.
    """
    with page(TEXT_IN, HEIGHT_IN, note) as figure:
        heights = [1.0, 1.0, 1.0, 0.8, 0.8, 0.8]
        panels = dict(
            zip(PANELS, figure.subplots(6, 1, sharex=True, height_ratios=heights), strict=True)
        )
        _faults(panels["faults"], struck, violated, span)
        _in_time(panels["in time"], frames, span)
        lines = (
            ("memory", "all_mb", BLACK, "server, workers,\nplanner", 1.0, "-"),
            ("memory", "server_mb", BLUE, "server alone", 1.0, "-"),
            ("memory", "load_mb", GREY, "honest clients", 1.0, (0, (4, 2))),
            ("files", "files", BLUE, "server", 1.0, "-"),
            ("files", "load_files", GREY, "honest clients", 1.0, (0, (4, 2))),
            ("tasks", "tasks", BLUE, "server", 1.0, "-"),
            ("tasks", "load_tasks", GREY, "honest clients", 1.0, (0, (4, 2))),
            ("tasks", "threads", BLUE, "", 1.0, ":"),
            ("tasks", "load_threads", GREY, "", 1.0, ":"),
            ("written", "record_bytes", BLACK, "records", 1 / 1024, "-"),
            ("written", "log_bytes", BLUE, "server's log", 1 / 1024, "-"),
        )
        for panel, what, color, name, scale, dashes in lines:
            _line(panels[panel], samples, span, what, color, name, scale, dashes)
        for i, (axes, title) in enumerate(zip(panels.values(), TITLES, strict=True)):
            letter(axes, i, title)
            if i > 1:
                axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
                axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            _starts(axes, samples, span)
        last = panels["written"]
        last.set_xlabel("minutes; grey lines: another server starts")
        last.set_xlim(0, (span[1] - span[0]) / 60)
        return save(figure, out, (".png",))


def _faults(
    axes: Axes, struck: Sequence[Struck], violated: Sequence[float], span: tuple[float, float]
) -> None:
    """Draw a row of bars for each party, and crosses where something did not hold."""
    least = (span[1] - span[0]) / 60 / 250  # what is over at once is to be seen, too
    rows = list(PARTIES)
    for one in struck:
        begin, end = ((t - span[0]) / 60 for t in (one.begin_s, one.end_s))
        row = rows.index(party(one.fault))
        axes.barh(row, max(end - begin, least), 0.7, begin, color=PARTIES[rows[row]][1])
    crosses = [(at_s - span[0]) / 60 for at_s in violated if at_s == at_s]
    axes.plot(crosses, [len(rows)] * len(crosses), "x", color=BLACK)
    axes.set_yticks(range(len(rows) + 1), [*(PARTIES[p][0] for p in rows), "violations"])
    axes.set_ylim(-0.6, len(rows) + 0.5)


def _in_time(axes: Axes, frames: Frames, span: tuple[float, float]) -> None:
    step_s = next(step for most, step in FRAMES_S.items() if span[1] - span[0] <= most)
    times = np.arange(span[0], span[1] - step_s, step_s)
    counts = [frames.count(t, t + step_s) for t in times]
    percent = np.array([100 * ok / total if total else np.nan for total, ok in counts])
    minutes = (times - span[0]) / 60
    axes.fill_between(minutes, percent, step="post", color=SKY, alpha=0.35, linewidth=0)
    axes.step(minutes, percent, where="post", color=BLACK, linewidth=0.6)
    axes.set_ylim(0, 105)


def _line(
    axes: Axes,
    samples: Sequence[Sample],
    span: tuple[float, float],
    what: str,
    color: str,
    name: str,
    scale: float,
    dashes: object,
) -> None:
    """Draw a value over time, broken where a server ended."""
    times, values = [], []
    for before, sample in zip([None, *samples], samples, strict=False):
        if before is not None and before.life != sample.life and not what.startswith("load"):
            times.append(sample.time_s)
            values.append(np.nan)
        times.append(sample.time_s)
        values.append(getattr(sample, what) * scale)
    minutes = (np.array(times) - span[0]) / 60
    axes.plot(minutes, values, color=color, label=name, linewidth=0.9, linestyle=dashes)


def _starts(axes: Axes, samples: Sequence[Sample], span: tuple[float, float]) -> None:
    for before, sample in pairwise(samples):
        if before.life != sample.life:
            axes.axvline((sample.time_s - span[0]) / 60, color=GREY, linewidth=0.5, zorder=0)
