"""Two things that a process asks of Linux about itself."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent is no more."""
    _prctl(_PR_SET_PDEATHSIG, number)


def sleep_precisely() -> None:
    """Let sleeps of this thread, and of those it starts, end within microseconds (not 50)."""
    _prctl(_PR_SET_TIMERSLACK, 1)
