"""Policies: every choice in which one way of serving differs from another, in one value.

The named ones: the published one, its published alternatives, ours, and the way between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from jellyfish.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How to plan, queue, batch, drop and adapt.

    Args:
        name: what configs, tables and figures call it.
        solver: the scheduler; `paper` is simulated annealing over DNNs and a dynamic program
            over clients (RTSS 2022, section V).
        server_budget: what the server takes off an SLO for the network: `per_dnn` (a frame of the
            DNN's size over the client's bandwidth), `fixed_frame` (one size whatever the DNN) or
            `fixed_share` (a quarter of the SLO whatever the bandwidth).
        slo_stretch: the scheduler plans with SLOs so many times as long. It sees to it that a
            frame can wait for one batch and run in the next, each at its p99, which hardly any
            frame meets; what it would keep free for that earns accuracy instead.
        bandwidth_window_s: the server plans with the harmonic mean of so long of reports.
        server_steps_down: the size that the server names is smaller than the mapped DNN's where
            bandwidth or budget ask for it; otherwise the client alone sees to that.
        queue_order: `edf` (earliest deadline first) or `fifo`.
        pad_batches: run every batch at the planned size, filled up with blank frames.
        drop_waiting: also answer frames that became too late while a batch is running; the
            published system looks at its queue only between batches.
        drop_tolerance_ms: drop a frame when its execution would end more than this after its
            deadline; infinite to run every frame.
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
        overhead_tail: mean deviations added to that mean, for a tail instead of a mean.
        backoff: how clients choose a size (jellyfish.backoff).
        estimator: how clients estimate their bandwidth: `filter` (the published error-based
            filter of network times) or `quick` (what each frame took on the link itself, and what
            an overdue acknowledgement already tells).
        server_quantile: clients that look ahead expect the server to take this quantile of what
            it took over the last second.
        bandwidth_margin: of the bandwidth's mean change from second to second, how many times
            clients who look ahead keep it in hand.
        skip_hopeless: clients do not send what cannot arrive in time.
    """

    name: str
    solver: str = "jellyfish"
    server_budget: str = "per_dnn"
    slo_stretch: float = 1.06
    bandwidth_window_s: float = 0.3
    server_steps_down: bool = False
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
    overhead_tail: float = 2.0
    backoff: str = "in_time"
    estimator: str = "quick"
    server_quantile: float = 0.9
    bandwidth_margin: float = 1.0
    skip_hopeless: bool = True


PAPER = Policy(
    name="paper",
    solver="paper",
    slo_stretch=1.0,
    bandwidth_window_s=1.0,
    server_steps_down=True,
    queue_order="fifo",
    pad_batches=True,
    drop_waiting=False,
    wait_for_planned=True,
    hold_new=False,
    replan_gap_s=0.5,
    count_device=False,
    overhead_weight=0.5,
    overhead_tail=0.0,
    backoff="best",
    estimator="filter",
    bandwidth_margin=0.0,
    skip_hopeless=False,
)
"""Everything as published (RTSS 2022)."""

JELLYFISH = Policy(name="jellyfish")
"""Ours: what this repository serves with unless told otherwise."""

STATIC = replace(
    PAPER,
    name="static",
    solver="static",
    pad_batches=False,
    wait_for_planned=False,
    drop_tolerance_ms=inf,
    backoff="fixed",
)
"""One DNN on every GPU, clients in turn, first come first served, no frame dropped."""

ALTERNATIVES = (
    replace(PAPER, name="aggressive", backoff="aggressive"),
    replace(PAPER, name="server-independent", backoff="independent"),
    replace(PAPER, name="fixed-size", backoff="fixed"),
    replace(PAPER, name="slo-aware", backoff="slo_share", server_budget="fixed_share"),
    replace(PAPER, name="fixed-frame", server_budget="fixed_frame"),
    STATIC,
    replace(STATIC, name="edf", queue_order="edf", drop_tolerance_ms=5.0, drop_waiting=True),
)
"""What the paper compares itself with, and two that do not adapt at all."""

_CHANGES: tuple[tuple[str, str], ...] = (
    ("earliest deadline first", "queue_order"),
    ("no padding", "pad_batches"),
    ("no waiting for the planned batch", "wait_for_planned"),
    ("drops while a batch runs", "drop_waiting"),
    ("new clients' frames are held", "hold_new"),
    ("plans at once on a change", "replan_gap_s"),
    ("device time counts", "count_device"),
    ("steadier overhead", "overhead_weight"),
    ("tail of the overhead", "overhead_tail"),
    ("our solver", "solver"),
    ("plans count on less than the worst", "slo_stretch"),
    ("client counts its backlog", "backoff"),
    ("quick estimate", "estimator"),
    ("headroom for a changing network", "bandwidth_margin"),
    ("shorter window", "bandwidth_window_s"),
    ("client skips the hopeless", "skip_hopeless"),
    ("client alone steps down", "server_steps_down"),
)


def _ablation() -> tuple[tuple[str, Policy], ...]:
    steps: list[tuple[str, Policy]] = [("paper", PAPER)]
    for number, (label, field) in enumerate(_CHANGES, 1):
        change: dict[str, Any] = {field: getattr(JELLYFISH, field)}
        steps.append((label, replace(steps[-1][1], name=f"step-{number:02}-{field}", **change)))
    return (*steps[:-1], (steps[-1][0], JELLYFISH))


ABLATION = _ablation()
"""(label, policy) from `paper` to `jellyfish`, each with one change more than the one before."""

POLICIES = {p.name: p for p in (PAPER, JELLYFISH, *ALTERNATIVES, *(p for _, p in ABLATION))}


def policy(name: str) -> Policy:
    """Return the policy called `name`.

    Raises:
        ConfigError: there is none; the text lists those there are.
    """
    if name not in POLICIES:
        raise ConfigError(f"no policy {name!r}; there are: {', '.join(POLICIES)}")
    return POLICIES[name]
