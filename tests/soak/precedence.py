"""Root's soaks go before what else runs on the machine: it is the server that is to be measured.

Linux shares cores among sessions first (`man 7 sched`, autogroups), and `nice` works within one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
NICE = -10


def take_precedence(nice: int = NICE) -> None:
    """Have this session go first, where we may."""
    with suppress(OSError):
        AUTOGROUP.write_text(str(nice))


@contextmanager
def precedence() -> Iterator[None]:
    """Have this session go first for a while: it is the caller's, too."""
    take_precedence()
    try:
        yield
    finally:
        take_precedence(0)
