"""A guard for whatever takes long: it must not outlive the run that it belongs to.

Snakemake does not end its scripts when it is killed. A guarded script watches every process
between itself and the topmost Snakemake, launcher or make, and ends itself when one of them ends:
SIGTERM, which raises in the main thread so that `with` and `finally` tear down; and a hard exit
when that takes longer than HARD_EXIT_S. What it started dies with it (experiment.spawn).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from experiment import processes
from experiment.leftovers import MARK, belongs_above, say
from experiment.processes import ProcessId
from jellyfish.errors import JellyfishError

HARD_EXIT_S = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(SystemExit):
    """This process was told to end; raised in its main thread."""


def above() -> list[ProcessId]:
    """Return the ancestors up to the topmost Snakemake, launcher or make; none without one."""
    chain = processes.ancestors()
    found = [i for i, p in enumerate(chain) if belongs_above(processes.command(p.pid))]
    return chain[: found[-1] + 1] if found else []


class Guard:
    """Watches `watched` from a thread, and turns the first signal into `Ended`."""

    def __init__(self, watched: list[ProcessId], hard_exit_s: float) -> None:
        self._watched = watched
        self._hard_exit_s = hard_exit_s
        self._told = False
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and give the signals back."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._told:  # tearing down already: more signals must not disturb that
            return
        self._told = True
        timer = threading.Timer(self._hard_exit_s, os._exit, [128 + number])
        timer.daemon = True
        timer.start()
        raise Ended(128 + number)

    def _watch(self) -> None:
        handles = processes.watch(self._watched)
        gone = [process for handle, process in handles.items() if handle < 0]
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for handle in (handle for handle in handles if handle > 0):
            poll.register(handle, select.POLLIN)
        if not gone:
            ready = [handle for handle, _ in poll.poll()]
            gone = [handles[handle] for handle in ready if handle in handles]
        for handle in (handle for handle in handles if handle > 0):
            os.close(handle)
        if gone:
            _mute_broken_streams()
            say(f"process {gone[0].pid}, which this one belongs to, has ended; ending too")
            os.kill(os.getpid(), signal.SIGTERM)


def _mute_broken_streams() -> None:
    """Point stdout and stderr elsewhere where nobody reads them any more: writing would raise."""
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


@contextmanager
def guarded(hard_exit_s: float = HARD_EXIT_S) -> Iterator[None]:
    """Run the body under a guard. Elsewhere than in the main thread, or nested, just run it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), Guard):
        yield
        return
    watched = above()
    if watched:  # part of a workflow run: what is started here can be told to be so
        os.environ.setdefault(MARK, str(Path.cwd()))
    guard = Guard(watched, hard_exit_s)
    guard.start()
    try:
        yield
    finally:
        guard.stop()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Run a stage of the workflow: guarded, and every expected error as one clear line.

    Exits with code 1 on an error of ours or of the disk, 128 + N when ended by signal N.
    """
    try:
        with guarded():
            yield
    except JellyfishError as error:
        sys.exit(f"error in {name}: {error}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(f"error in {name}: {error.strerror or error}{where}")
