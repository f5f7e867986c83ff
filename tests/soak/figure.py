"""One figure of a soak: frames in time, memory, open files, threads and log, with all faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    legend_above,
    letter,
    page,
    save,
)
from tests.soak.checks import Frames, Struck
from tests.soak.faults import party
from tests.soak.watching import Sample

PARTIES = {  # what is hit, and how it is called and drawn
    "gpu": ("worker", ORANGE),
    "planner": ("planner", PURPLE),
    "link": ("link", SKY),
    "client": ("hostile client", GREEN),
    "server": ("server or its disk", RED),
}
HEIGHT_IN = 6.6


def draw(
    out: Path,
    samples: Sequence[Sample],
    struck: Sequence[Struck],
    frames: Frames,
    span: tuple[float, float],
    note: str,
) -> list[Path]:
    """Write the figure; return its paths."""
    with page(TEXT_IN, HEIGHT_IN, note) as figure:
        panels = figure.subplots(5, 1, sharex=True)
        _in_time(panels[0], frames, span)
        _line(panels[1], samples, span, "all_mb", BLACK, "server, workers and planner")
        _line(panels[1], samples, span, "server_mb", BLUE, "server alone")
        _line(panels[1], samples, span, "load_mb", GREY, "4 honest clients")
        _line(panels[2], samples, span, "files", BLUE, "server")
        _line(panels[2], samples, span, "load_files", GREY, "clients")
        _line(panels[3], samples, span, "threads", BLUE, "server")
        _line(panels[3], samples, span, "load_threads", GREY, "clients")
        _line(panels[4], samples, span, "log_bytes", BLUE, "log", 1 / 1024)
        _line(panels[4], samples, span, "record_bytes", BLACK, "records", 1 / 1024)
        titles = (
            "frames of honest clients in time (%)",
            "memory (MB)",
            "open files",
            "threads",
            "written (kB)",
        )
        for i, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            letter(axes, i, title)
            axes.set_ylim(bottom=0)
            _marks(axes, struck, span)
            if i:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[0].set_ylim(0, 105)
        panels[4].set_xlabel("minutes")
        panels[4].set_xlim(0, (span[1] - span[0]) / 60)
        seen = [name for name in PARTIES if any(party(s.fault) == name for s in struck)]
        handles = [Patch(color=PARTIES[p][1], alpha=0.35) for p in seen]
        wrong = Line2D([], [], color=BLACK, marker="x", linestyle="")
        names = [f"fault of: {PARTIES[p][0]}" for p in seen]
        legend_above(figure, [*handles, wrong], [*names, "violation"])
        return save(figure, out, (".png",))


def _in_time(axes: Axes, frames: Frames, span: tuple[float, float]) -> None:
    times = np.arange(span[0], span[1] - 1, 1.0)
    counts = [frames.count(t, t + 1.0) for t in times]
    percent = [100 * ok / total if total else np.nan for total, ok in counts]
    axes.step((times - span[0]) / 60, percent, where="post", color=BLACK, linewidth=0.8)


def _line(
    axes: Axes,
    samples: Sequence[Sample],
    span: tuple[float, float],
    what: str,
    color: str,
    name: str,
    scale: float = 1.0,
) -> None:
    """Draw a value over time, broken where a server ended."""
    times, values = [], []
    for before, sample in zip([None, *samples], samples, strict=False):
        if before is not None and before.life != sample.life and not what.startswith("load"):
            times.append(sample.time_s)
            values.append(np.nan)
        times.append(sample.time_s)
        values.append(getattr(sample, what) * scale)
    axes.plot((np.array(times) - span[0]) / 60, values, color=color, label=name, linewidth=0.9)


def _marks(axes: Axes, struck: Sequence[Struck], span: tuple[float, float]) -> None:
    least = (span[1] - span[0]) / 60 / 300  # what is over at once is to be seen, too
    for one in struck:
        begin, end = ((t - span[0]) / 60 for t in (one.begin_s, one.end_s))
        color = PARTIES[party(one.fault)][1]
        axes.axvspan(begin, max(end, begin + least), color=color, alpha=0.35, linewidth=0)
        if one.violations:
            axes.plot([begin], [axes.get_ylim()[1]], "x", color=BLACK, clip_on=False)
