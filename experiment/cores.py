"""Which cores whom: workers keep to their own, everything else to the rest; and cores that wake."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_LATENCY = "/dev/cpu_dma_latency"


@dataclass(frozen=True)
class Cores:
    """The cores of each worker, and those of clients, relays, server and manager."""

    workers: tuple[tuple[int, ...], ...]
    rest: tuple[int, ...]


def share(workers: int, threads: int, available: Sequence[int] | None = None) -> Cores:
    """Give each worker its own `threads` cores, the last ones, and all else the cores left.

    Where there are too few, workers share, in turn; where none is left, the rest uses all.

    Args:
        workers: how many.
        threads: CPU threads of one worker's forward pass.
        available: the cores there are; by default those that this process may use.
    """
    cores = tuple(sorted(os.sched_getaffinity(0) if available is None else available))
    wanted = workers * threads
    # At least one core for the rest, where there are two: clients that starve measure themselves.
    own = cores[-min(wanted, max(1, len(cores) - 1)) :]
    each = min(threads, len(own))
    given = tuple(
        tuple(sorted(own[(i * each + k) % len(own)] for k in range(each))) for i in range(workers)
    )
    return Cores(workers=given, rest=tuple(c for c in cores if c not in own) or cores)


@contextmanager
def awake() -> Iterator[bool]:
    """Keep this machine's cores from idle states meanwhile; yield whether that is permitted.

    A core that sleeps between two frames wakes late: by 0.1 ms on a bare machine, by milliseconds
    on a virtual one, whose hypervisor lends a sleeping core away. Needs root (Linux, PM QoS).
    """
    try:
        handle = os.open(_LATENCY, os.O_WRONLY)
    except OSError:
        yield False
        return
    try:
        os.write(handle, struct.pack("i", 0))  # us that waking may take, while this is open
        yield True
    finally:
        os.close(handle)


@contextmanager
def kept_to(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, and what it starts, to `cores` meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
