"""The picture in the README: clients, network and server, and who decides what.

Run `python -m scripts.figures.overview` to draw docs/overview.svg and .png anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from jellyfish.trace import Trace, from_rates
from scripts.figures import style

_W, _H = style.TEXT_IN, 2.95  # the drawing's units are inches
_ROWS = (2.02, 1.24, 0.46)  # bottom of each client's row
_CLIENTS = (
    ("15 frames/s, SLO 100 ms", 0),
    ("25 frames/s, SLO 75 ms", 2),
    ("10 frames/s, SLO 150 ms", 5),
)
_TRACE = from_rates("synthetic", (20, 15, 10, 7.5, 10, 15, 20), 20)
_INK = "#222222"


def draw(*, out: Path) -> list[Path]:
    """Draw the system to `out` (.svg, .png) and return the paths."""
    with style.page(_W, _H, "", panels=False) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _W), ylim=(0, _H))
        axes.axis("off")
        for row, (text, shift) in enumerate(_CLIENTS):
            _client(axes, row, text)
            _network(axes, row, _TRACE.shifted(shift))
        _server(axes)
        _headings(axes)
        return style.save(figure, out, (".svg", ".png"))


def _box(axes: Axes, x: float, y: float, w: float, h: float, fill: str, edge: str = _INK) -> None:
    look = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch((x, y), w, h, look, facecolor=fill, edgecolor=edge, linewidth=0.8)
    )


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = _INK,
    dashes: str = "-",
    bend: float = 0.0,
) -> None:
    props = {
        "arrowstyle": "-|>,head_width=0.16,head_length=0.3",
        "color": color,
        "linewidth": 0.9,
        "linestyle": dashes,
        "shrinkA": 0,
        "shrinkB": 0,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", end, start, arrowprops=props)


def _client(axes: Axes, row: int, text: str) -> None:
    y = _ROWS[row]
    _box(axes, 0.05, y, 1.42, 0.58, "white", style.line(row).color)
    axes.text(0.13, y + 0.39, f"Client {row + 1}", weight="bold", color=style.line(row).color)
    axes.text(0.13, y + 0.22, text, size=7, color=_INK)
    _small(axes, 0.13, y + 0.08, "resize, JPEG, estimate bandwidth")


def _network(axes: Axes, row: int, trace: Trace) -> None:
    """Draw a link: its bandwidth over time, and on it frames as large as it can carry."""
    y, left, right = _ROWS[row], 1.6, 3.42
    color = style.line(row).color
    edges = np.linspace(left, right, len(trace.mbps) + 1)
    height = 0.58 * np.array([*trace.mbps, trace.mbps[-1]]) / max(trace.mbps)
    axes.fill_between(edges, y, y + height, step="post", color=color, alpha=0.14, linewidth=0)
    axes.step(edges, y + height, where="post", color=color, linewidth=0.8)
    for middle, mbps in zip((edges[:-1] + edges[1:]) / 2, trace.mbps, strict=True):
        side = 0.06 + 0.15 * (mbps / max(trace.mbps) - 0.375) / 0.625
        axes.add_patch(
            Rectangle(
                (middle - side / 2, y + 0.14 - side / 2),
                side,
                side,
                facecolor=color,
                edgecolor="white",
                linewidth=0.4,
            )
        )
    _arrow(axes, (right + 0.02, y + 0.14), (right + 0.3, y + 0.14), color)


def _server(axes: Axes) -> None:
    _box(axes, 3.72, 0.4, 3.39, 2.26, "#F6F6F6", style.GREY)
    _box(axes, 3.86, 1.96, 3.11, 0.58, "#FFF6DF", style.ORANGE)
    _text(
        axes,
        2.36,
        "Scheduler",
        "every 0.5 s and on join and leave: DNN and batch size of each GPU,\n"
        "which GPU serves each client, which size each client sends",
    )
    _box(axes, 3.86, 0.54, 1.3, 0.98, "white")
    _text(
        axes,
        1.34,
        "Dispatcher",
        "queues; batches by\nearliest deadline; drops\nat once what cannot\nbe in time",
    )
    _worker(axes, 0, 1.06, 6, 3, (0,))
    _worker(axes, 1, 0.54, 3, 2, (1, 2))
    for y in (1.29, 0.77):
        _arrow(axes, (5.17, y), (5.43, y))
    _arrow(axes, (4.4, 1.53), (4.4, 1.95), style.GREY, "--")
    _arrow(axes, (6.2, 1.95), (6.2, 1.54), style.ORANGE, "--")
    _small(axes, 4.46, 1.7, "bandwidths, latency budgets")
    _small(axes, 6.26, 1.7, "plan")
    _small(axes, 5.44, 0.44, "the zoo's DNNs: dark runs, pale is loaded")


def _text(axes: Axes, y: float, title: str, body: str) -> None:
    axes.text(3.96, y, title, weight="bold", color=_INK)
    axes.text(3.96, y - 0.07, body, size=6.4, color=_INK, linespacing=1.25, va="top")


def _small(axes: Axes, x: float, y: float, text: str, color: str = style.GREY) -> None:
    axes.text(x, y, text, size=5.8, color=color)


def _worker(axes: Axes, gpu: int, y: float, dnn: int, batch: int, clients: tuple[int, ...]) -> None:
    """Draw a GPU with the zoo's DNNs as squares, the one it runs filled, and whom it serves."""
    _box(axes, 5.44, y, 1.53, 0.46, "white")
    axes.text(5.51, y + 0.29, f"GPU {gpu}", weight="bold", size=7, color=_INK)
    axes.text(5.92, y + 0.29, f"batch of {batch}, serves", size=6.2, color=_INK)
    for i, client in enumerate(clients):
        axes.plot(
            6.71 + 0.12 * i,
            y + 0.33,
            style.line(client).marker,
            color=style.line(client).color,
            markersize=3.5,
        )
    x = 5.51
    for m in range(9):
        side = 0.07 + 0.0155 * m
        fill = style.BLUE if m == dnn else ("#BBD5E8" if abs(m - dnn) <= 2 else "white")
        axes.add_patch(
            Rectangle(
                (x, y + 0.04), side, side, facecolor=fill, edgecolor=style.GREY, linewidth=0.4
            )
        )
        x += side + 0.025


def _headings(axes: Axes) -> None:
    for x, text in ((0.76, "Devices"), (2.51, "Network that swings"), (5.41, "Edge server")):
        axes.text(x, 2.76, text, ha="center", weight="bold", size=9, color=_INK)
    _small(axes, 2.28, _ROWS[0] + 0.47, "bandwidth")
    _small(axes, 2.13, _ROWS[0] - 0.09, "frames as they are sent")
    _arrow(axes, (5.4, 0.24), (0.76, 0.24))
    back = "detections, stage times, the size to send next"
    axes.text(3.1, 0.07, back, ha="center", size=7, color=_INK)


if __name__ == "__main__":
    draw(out=Path(__file__).parents[2] / "docs" / "overview.svg")
