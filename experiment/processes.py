"""Processes of this machine by pid and start time, so that a pid used anew is never mistaken."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid and the time its process started, in clock ticks since boot (proc(5), field 22)."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        found = _stat(self.pid)
        return found is not None and found.start == self.start and found.state not in "ZX"

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(command(self.pid)[:6]) or 'gone'})"


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    start: int
    cpu_s: float  # with that of children that it has waited for


_TICKS = os.sysconf("SC_CLK_TCK")  # a second


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return _Stat(
        state=fields[0],
        parent=int(fields[1]),
        start=int(fields[19]),
        cpu_s=sum(map(int, fields[11:15])) / _TICKS,
    )


def identify(pid: int) -> ProcessId | None:
    """Return the process that has `pid` now, or None."""
    found = _stat(pid)
    return None if found is None else ProcessId(pid, found.start)


def every() -> Iterator[ProcessId]:
    """Yield each process that this user may see."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := identify(int(entry.name))) is not None:
            yield found


def ancestors(pid: int | None = None) -> list[ProcessId]:
    """Return the parent of `pid` (default: this process), its parent, and so on up to the top."""
    chain: list[ProcessId] = []
    found = _stat(os.getpid() if pid is None else pid)
    while found is not None and found.parent > 0:
        parent = identify(found.parent)
        if parent is None:
            break
        chain.append(parent)
        found = _stat(parent.pid)
    return chain


def descendants(pid: int) -> list[ProcessId]:
    """Return every living process below `pid`, parents before children."""
    below = _below(pid)
    return [ProcessId(one, found.start) for one, found in below if found.state not in "ZX"]


def _below(pid: int) -> list[tuple[int, _Stat]]:
    children: dict[int, list[tuple[int, _Stat]]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            children.setdefault(found.parent, []).append((int(entry.name), found))
    result = list(children.get(pid, []))
    for below, _ in result:  # grows while it is walked: breadth first
        result += children.get(below, [])
    return result


def cpu_of_tree(pid: int) -> float:
    """Return the CPU time in s that `pid` and all that descends from it have taken so far.

    What has ended counts, once its parent has waited for it; what its parent left behind does not.
    """
    own = _stat(pid)
    return sum(stat.cpu_s for stat in [*([own] if own else []), *(s for _, s in _below(pid))])


def cpu_of_machine() -> tuple[float, float]:
    """Return the CPU time in s, over all cores, that programs took, and that was stolen from here.

    Interrupts are in neither: they are no program's. See proc(5), /proc/stat.
    """
    user, nice, system, _, _, _, _, stolen = map(
        int, (_PROC / "stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system) / _TICKS, stolen / _TICKS


def command(pid: int) -> list[str]:
    """Return the command line of `pid`; empty when it is gone or not ours to read."""
    return _read(pid, "cmdline").decode(errors="replace").split("\0")[:-1]


def environment(pid: int) -> dict[str, str]:
    """Return the environment that `pid` was started with; empty when it may not be read."""
    pairs = _read(pid, "environ").decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def directory(pid: int) -> Path | None:
    """Return the working directory of `pid`, or None when it may not be read."""
    try:
        return (_PROC / str(pid) / "cwd").readlink()
    except OSError:
        return None


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:  # gone, or another user's
        return b""


def watch(processes: Iterable[ProcessId]) -> dict[int, ProcessId]:
    """Return a pidfd for each process; one becomes readable when its process ends.

    A process that has ended already, or cannot be watched, gets the key -pid instead.
    """
    found: dict[int, ProcessId] = {}
    for process in processes:
        try:
            handle = os.pidfd_open(process.pid)
        except OSError:
            handle = -process.pid
        if handle > 0 and not process.alive:
            os.close(handle)
            handle = -process.pid
        found[handle] = process
    return found


def wait_gone(processes: Iterable[ProcessId], timeout_s: float) -> list[ProcessId]:
    """Wait until all have ended, or `timeout_s` has passed; return those that still run."""
    left = watch(processes)
    deadline = time.monotonic() + timeout_s
    poll = select.poll()
    for handle in [handle for handle in left if handle < 0]:
        del left[handle]
    for handle in left:
        poll.register(handle, select.POLLIN)
    while left and (rest := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(rest * 1000):
            poll.unregister(handle)
            os.close(handle)
            del left[handle]
    for handle in left:
        os.close(handle)
    return list(left.values())


def end(processes: Iterable[ProcessId], grace_s: float) -> list[ProcessId]:
    """End processes: SIGTERM, and SIGKILL for those that still run after `grace_s`.

    Returns:
        Those that had to be killed.
    """
    asked = [process for process in processes if process.alive]
    for process in asked:
        send(process, signal.SIGTERM)
    left = wait_gone(asked, grace_s)
    for process in left:
        send(process, signal.SIGKILL)
    wait_gone(left, 5.0)
    return left


def send(process: ProcessId, number: signal.Signals) -> None:
    """Send a signal to that very process; nothing happens when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.alive:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return  # it ended in between
    finally:
        os.close(handle)


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Have the kernel send `number` to this process when the thread that started it ends.

    Args:
        number: the signal.
        parent: who must be the parent now; if another one is, that parent died before this call.
    """
    _prctl(PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (a subreaper)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
