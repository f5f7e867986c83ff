"""Progress bars with the time left, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar; the body calls what it gets once a step. Off a terminal: one line at the end."""
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    shown = Progress(
        *columns,
        console=console,
        transient=console.is_terminal,
        refresh_per_second=2,  # drawing takes time from what is measured
    )
    with shown:
        task = shown.add_task(what, total=total)
        yield lambda: shown.advance(task)
