"""Named policies: every choice in which one way of serving differs from another, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from jellyfish.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How to plan, queue, batch, drop and adapt.

    Args:
        name: what configs, tables and figures call it.
        solver: the scheduler; `paper` is simulated annealing over DNNs and a dynamic program
            over clients (RTSS 2022, section V).
        queue_order: `edf` (earliest deadline first) or `fifo`.
        pad_batches: run every batch at the planned size, filled up with blank frames.
        drop_waiting: also answer frames that became too late while a batch is running; the
            published system looks at its queue only between batches.
        drop_tolerance_ms: drop a frame when its execution would end more than this after its
            deadline.
        wait_for_planned: wait for a batch of the planned size even if smaller ones keep up.
        batch_slack_ms: wait for a fuller batch only while the tightest frame has more than this
            to spare.
        hold_new: keep the frames of a client that no plan has considered yet until one has;
            the published system drops them.
        replan_gap_s: a client's joining or leaving calls for a new plan at once, but no sooner
            than this after the last.
        count_device: take the time from a frame's capture to its sending off its budget; the
            published system counts from sending.
        overhead_weight: weight of the newest value in the running mean of dispatch times.
        backoff: how clients step down on their own estimate of the bandwidth.
    """

    name: str
    solver: str = "paper"
    queue_order: str = "edf"
    pad_batches: bool = False
    drop_waiting: bool = True
    drop_tolerance_ms: float = 5.0
    wait_for_planned: bool = False
    batch_slack_ms: float = 10.0
    hold_new: bool = True
    replan_gap_s: float = 0.05
    count_device: bool = True
    overhead_weight: float = 0.1
    backoff: str = "best"


POLICIES = {
    p.name: p
    for p in (
        Policy(
            name="paper",
            queue_order="fifo",
            pad_batches=True,
            drop_waiting=False,
            wait_for_planned=True,
            hold_new=False,
            replan_gap_s=0.5,
            count_device=False,
            overhead_weight=0.5,
        ),
        Policy(name="jellyfish"),
    )
}


def policy(name: str) -> Policy:
    """Return the policy called `name`.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    if name not in POLICIES:
        raise ConfigError(f"no policy {name!r}; there are: {', '.join(POLICIES)}")
    return POLICIES[name]
