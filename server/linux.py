"""What a process asks of Linux about itself."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_ENDS = (signal.SIGINT, signal.SIGTERM)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, process `parent`, is no more."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


@contextmanager
def ends_blocked() -> Iterator[None]:
    """Start children that SIGINT and SIGTERM do not end before they `leave_ends_to_parent`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_ends_to_parent() -> None:
    """Ignore SIGINT and SIGTERM, which reach a whole process group: the parent ends this one."""
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)


def sleep_precisely() -> None:
    """Let sleeps of this thread end within microseconds (not 50)."""
    _prctl(_PR_SET_TIMERSLACK, 1)


def run_before_others() -> None:
    """Have this thread run as soon as it wakes, whoever else wants the core, if that is permitted.

    For threads that mostly sleep; those that they start do not inherit it.
    """
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    with suppress(PermissionError):
        os.sched_setscheduler(0, policy, os.sched_param(1))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")
