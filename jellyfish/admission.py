"""Whether a client that wants to join could be served by any plan at all."""

from __future__ import annotations

from math import isfinite

from jellyfish.profile import Profile
from jellyfish.scheduling.problem import BATCHES_IN_BUDGET


def refusal(
    profile: Profile, fps: float, slo_ms: float, wire_ms: float, overhead_ms: float
) -> str | None:
    """Return why no plan could ever serve such a client, or None where one could.

    The best case counts: an idle GPU with the smallest DNN, and a network without limits.

    Args:
        profile: what the zoo's DNNs cost.
        fps: frames per second asked for.
        slo_ms: end-to-end SLO asked for.
        wire_ms: wire latency, one way.
        overhead_ms: the server's own time per frame.
    """
    if not (isfinite(fps) and fps > 0):
        return f"fps is {fps}; want a positive number"
    if not (isfinite(slo_ms) and slo_ms > 0):
        return f"slo_ms is {slo_ms}; want a positive number"
    budget_ms = slo_ms - 2 * wire_ms - overhead_ms
    in_time = BATCHES_IN_BUDGET * profile.latency_ms[0] <= budget_ms  # (B,)
    if not in_time.any():
        least = BATCHES_IN_BUDGET * profile.latency_ms[0, 0] + 2 * wire_ms + overhead_ms
        return f"an SLO of {slo_ms:g} ms cannot be met; {least:.1f} ms is the least"
    most = float(profile.throughput[0][in_time].max())
    if fps >= most:
        return (
            f"{fps:g} frames/s within {slo_ms:g} ms cannot be served; fewer than {most:.1f} could"
        )
    return None
