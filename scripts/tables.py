"""The table of scores that people read: a line a cell, in Markdown and in HTML for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from jellyfish.files.atomic import whole_file
from jellyfish.files.tables import read_table

SETTING = ("world", "latencies", "workers", "policy", "trace")  # said once, where all cells agree


def _plain(value: object) -> str:
    return str(value)


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f} %"


def _share(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"


def _whole(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.0f}"


SHOWN: dict[str, tuple[str, Callable[..., str]]] = {
    **{name: (name, _plain) for name in SETTING},
    "group": ("clients", _plain),
    "slo": ("SLO, ms", _plain),
    "fps": ("fps", _plain),
    "frames": ("frames", _whole),
    "miss_rate": ("missed", _percent),
    "late_rate": ("late", _percent),
    "dropped_rate": ("dropped", _percent),
    "f1_strict_all": ("F1, all", _share),
    "f1_strict_answered": ("F1, answered", _share),
    "f1_published_answered": ("F1 as published", _share),
    "ap50": ("AP50", _share),
    "e2e_p50_ms": ("p50, ms", _whole),
    "e2e_p99_ms": ("p99, ms", _whole),
    "px_mean": ("mean px", _whole),
    "dnns_used": ("DNNs", _whole),
}


def caption(cells: pd.DataFrame) -> str:
    """Return what all cells have in common, as words."""
    same = {name: cells[name].iloc[0] for name in SETTING if cells[name].nunique() == 1}
    return ", ".join(f"{name}: {value}" for name, value in same.items())


def lines(cells: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table, as text; cells as scores_by_cell has them."""
    names = [n for n in SHOWN if n not in SETTING or cells[n].nunique() > 1]
    rows = [[SHOWN[name][1](value) for name, value in row.items()] for row in _rows(cells, names)]
    return [SHOWN[name][0] for name in names], rows


def _rows(cells: pd.DataFrame, names: list[str]) -> list[dict[str, object]]:
    columns = {name: cells[name].tolist() for name in names}
    return [{name: columns[name][i] for name in names} for i in range(len(cells))]


def markdown(cells: pd.DataFrame) -> str:
    """Return the table in Markdown."""
    heads, rows = lines(cells)
    body = [heads, ["---"] * len(heads), *rows]
    return "\n".join([f"{caption(cells)}\n", *(f"| {' | '.join(row)} |" for row in body)]) + "\n"


def html(cells: pd.DataFrame) -> str:
    """Return the table as an HTML page."""
    heads, rows = lines(cells)

    def line(cell: str, row: list[str]) -> str:
        return "<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in row) + "</tr>"

    style = "body{font:14px sans-serif} td,th{padding:2px 8px;text-align:right}"
    return (
        f"<!doctype html><meta charset=utf-8><title>Scores</title><style>{style}</style>\n"
        f"<table><caption>{escape(caption(cells))}</caption>\n"
        + "\n".join([line("th", heads), *(line("td", row) for row in rows)])
        + "\n</table>\n"
    )


def main(scores_by_cell: Path) -> list[Path]:
    """Write scores.md and scores.html beside `scores_by_cell`; return their paths.

    Raises:
        DataError: the table is missing or broken.
    """
    cells: pd.DataFrame = read_table(scores_by_cell).to_pandas()
    written = []
    for name, text in (("scores.md", markdown(cells)), ("scores.html", html(cells))):
        path = scores_by_cell.with_name(name)
        with whole_file(path) as temporary:
            temporary.write_text(text)
        written.append(path)
    return written


def write_missing(path: Path, cells: Sequence[str], logs: Path) -> None:
    """Write the names of cells that figures lack to the CSV file `path`, one a row.

    `logs` is where their jobs, if they ran, told why they failed.
    """
    rows = [{"cell": name, "log": str(logs / f"{name}.log")} for name in cells]
    with whole_file(path) as temporary:
        pd.DataFrame(rows, columns=["cell", "log"]).to_csv(temporary, index=False)
