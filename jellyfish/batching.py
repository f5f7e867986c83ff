"""Which of the frames that wait for a GPU run next, and which can no longer make their deadline.

Pure decisions: the engine asks whenever a worker is free (RTSS 2022, section V, lazy drop).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jellyfish.policy import Policy

GRAIN_MS = 1.0  # timers are no finer: a shorter wait is none


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do with a queue, by positions in it.

    Args:
        take: frames to run now, as one batch; empty when there is nothing to run yet.
        drop: frames to answer as dropped.
        wait_ms: with nothing to take, look again after this long at the latest; None when only a
            new frame can change anything.
    """

    take: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    wait_ms: float | None = None


def choose(
    remaining_ms: Sequence[float],
    latency_ms: Sequence[float],
    batch: int,
    policy: Policy,
    *,
    worthwhile: int | None = None,
) -> Choice:
    """Return which frames run next on a free worker.

    Earliest deadline first: the tightest frame decides. While no more than a batch waits, the
    batch shrinks for its sake; with a backlog, small batches would cost those behind it more than
    it is worth, and it is dropped. First in, first out, as published: every frame must stand the
    planned batch.

    Args:
        remaining_ms: for each waiting frame in queue order, ms until a batch must be done.
        latency_ms: (B,) p99 ms for which batch sizes 1..B occupy the worker.
        batch: the planned batch size.
        policy: order, padding, tolerance and slack.
        worthwhile: wait for a fuller batch only up to this size; the planned one when None.
    """
    if policy.queue_order == "edf" and not policy.pad_batches:
        choice = _tightest_first(remaining_ms, latency_ms, batch, policy.drop_tolerance_ms)
    else:
        choice = _in_order(remaining_ms, latency_ms[batch - 1], batch, policy.drop_tolerance_ms)
    enough = batch if worthwhile is None else min(batch, worthwhile)
    everything = len(choice.take) + len(choice.drop) == len(remaining_ms)
    if not choice.take or len(choice.take) >= enough or not everything:
        return choice
    tightest = min(remaining_ms[i] for i in choice.take)
    wait_ms = tightest - latency_ms[batch - 1] - policy.batch_slack_ms
    return Choice(drop=choice.drop, wait_ms=wait_ms) if wait_ms > GRAIN_MS else choice


def worthwhile_batch(
    latency_ms: Sequence[float], batch: int, fps: float, policy: Policy, *, draining: bool = False
) -> int:
    """Return up to which size it is worth waiting for a fuller batch.

    The published system waits for the planned size whenever slack allows it. That spends the slack
    that jitter will ask for, and buys nothing while smaller batches keep up with the load: so
    wait only for the smallest size that does.

    Args:
        latency_ms: (B,) p99 ms for which batch sizes 1..B occupy the worker.
        batch: the planned batch size.
        fps: frames per second that are mapped to the worker.
        policy: whether to wait for the planned size regardless.
        draining: no more frames will come; do not wait for any.
    """
    if draining:
        return 1
    if policy.wait_for_planned:
        return batch
    keeps_up = (b for b in range(1, batch) if b * 1000 > fps * latency_ms[b - 1])
    return next(keeps_up, batch)


def _in_order(
    remaining_ms: Sequence[float], cost_ms: float, batch: int, tolerance_ms: float
) -> Choice:
    take: list[int] = []
    drop: list[int] = []
    for i, remaining in enumerate(remaining_ms):
        if len(take) == batch:
            break
        (drop if cost_ms - remaining > tolerance_ms else take).append(i)
    return Choice(take=tuple(take), drop=tuple(drop))


def _tightest_first(
    remaining_ms: Sequence[float], latency_ms: Sequence[float], batch: int, tolerance_ms: float
) -> Choice:
    waiting = len(remaining_ms)
    for head, remaining in enumerate(remaining_ms):
        size = min(waiting - head, batch)
        backlog = waiting - head > batch
        smallest = size if backlog else 1
        while size >= smallest and latency_ms[size - 1] - remaining > tolerance_ms:
            size -= 1
        if size >= smallest:
            return Choice(take=tuple(range(head, head + size)), drop=tuple(range(head)))
    return Choice(drop=tuple(range(waiting)))
