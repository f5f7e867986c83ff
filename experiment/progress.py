"""Progress bars with the time left, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A bar that is shown: called once a step.

    Args:
        shown: the display.
        what: what it is about.
        total: how many steps there are.
    """

    def __init__(self, shown: Progress, what: str, total: int) -> None:
        self._shown, self._what = shown, what
        self._task = shown.add_task(what, total=total)

    def __call__(self) -> None:
        """Take a step."""
        self._shown.update(self._task, description=self._what, advance=1)

    def note(self, text: str) -> None:
        """Say how the present step goes."""
        self._shown.update(self._task, description=f"{self._what}: {text}")


@contextmanager
def progress(what: str, total: int) -> Iterator[Bar]:
    """Show a bar; the body calls it once a step. Off a terminal: one line at the end."""
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 160)
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
        yield Bar(shown, what, total)
