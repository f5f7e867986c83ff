"""The look that all figures share: sizes of an IEEE page, colours for every eye, PDF and PNG.

Colours are those of Okabe and Ito, and every line differs by marker and dashes as well, so that
figures also read in grey print. Nothing here uses pyplot: a figure is an object, not a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from jellyfish.files.atomic import whole_file

COLUMN_IN = 3.5  # width of one column of an IEEE paper
TEXT_IN = 7.16  # width of both

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#6E6E6E"

_RC: dict[str, Any] = {
    "font.family": "STIXGeneral",  # comes with matplotlib: the same letters on every machine
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.2,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "jellyfish",
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Line:
    """How one series is told from the others: by colour, marker and dashes at once."""

    color: str
    marker: str
    dashes: Any

    def kwargs(self) -> dict[str, Any]:
        """Return it as keyword arguments of `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.dashes}


_LINES = (
    Line(BLUE, "o", "-"),
    Line(RED, "s", (0, (4, 1.5))),
    Line(GREEN, "^", (0, (1, 1))),
    Line(BLACK, "D", (0, (5, 1, 1, 1))),
    Line(ORANGE, "v", (0, (7, 2))),
    Line(PURPLE, "P", (0, (3, 1, 1, 1, 1, 1))),
    Line(SKY, "X", (0, (2, 2))),
)


def line(index: int) -> Line:
    """Return the look of series `index`; the eighth looks like the first again."""
    return _LINES[index % len(_LINES)]


def size_colors(count: int) -> list[Any]:
    """Return `count` colours for DNNs by input size: dark is small, light is large."""
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.88, count)))


@contextmanager
def page(width_in: float, height_in: float, note: str, *, panels: bool = True) -> Iterator[Figure]:
    """Yield a figure of that size in the shared style, with `note` in small print below it.

    `panels` are laid out so that nothing overlaps; a drawing places its parts itself.
    Whatever is drawn or saved must happen inside: the style ends with the context.
    """
    with mpl.rc_context(cast(Any, _RC)):
        figure = Figure(figsize=(width_in, height_in), layout="constrained" if panels else None)
        below = 0.0
        if note:
            lines = _wrapped(note, width_in)
            below = (0.11 * len(lines) + 0.05) / height_in
            figure.text(0.5, 0.03 / height_in, "\n".join(lines), ha="center", size=6, color=GREY)
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.set(rect=(0, below, 1, 1 - below))  # type: ignore[call-arg]
        yield figure


def _wrapped(note: str, width_in: float) -> list[str]:
    """Break `note` at its ` · ` where a line of 6 pt print gets longer than the figure is wide."""
    limit, lines = int(width_in * 24), [""]
    for part in note.split(" · "):
        longer = f"{lines[-1]} · {part}" if lines[-1] else part
        if lines[-1] and len(longer) > limit:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def legend_above(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Put a legend above all panels, in as few rows as the figure's width allows."""
    for rows in range(1, len(names) + 1):
        legend = figure.legend(
            handles, names, loc="outside upper center", ncols=ceil(len(names) / rows)
        )
        if legend.get_window_extent().width <= figure.bbox.width or rows == len(names):
            return
        legend.remove()


def letter(axes: Axes, index: int | None, title: str) -> None:
    """Title panel 0 `(a) title`, panel 1 `(b) title`, ...; the only panel (None) just `title`."""
    axes.set_title(title if index is None else f"({chr(ord('a') + index)}) {title}")


def miss_axis(axes: Axes) -> None:
    """Make the y axis one of frames missed in %: linear up to 0.1 %, logarithmic above."""
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.1, 1, 10, 100]))
    axes.yaxis.set_minor_locator(FixedLocator([0.2, 0.5, 2, 5, 20, 50]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(0, 100)


def save(figure: Figure, out: Path, suffixes: Sequence[str] = (".pdf", ".png")) -> list[Path]:
    """Write `out` with each of `suffixes` in place of its own, each whole; return the paths.

    The same figure gives the same bytes: no dates are written.
    """
    paths = []
    for suffix in suffixes:
        path = out.with_suffix(suffix)
        dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(suffix, {})
        with whole_file(path) as temporary:
            figure.savefig(temporary, metadata=dates)
        paths.append(path)
    return paths
