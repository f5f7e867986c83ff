"""Whether a client that wants to join could be served by any plan at all."""

from __future__ import annotations

from jellyfish.profile import Profile
from jellyfish.scheduling.problem import BATCHES_IN_BUDGET

FPS = 0.1, 1000.0  # frames per second that a client may ask for
MAX_SLO_MS = 60_000.0


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
    if not FPS[0] <= fps <= FPS[1]:  # true for NaN, too
        return f"fps is {fps}; want {FPS[0]:g} to {FPS[1]:g}"
    if not 0 < slo_ms <= MAX_SLO_MS:
        return f"slo_ms is {slo_ms}; want more than 0, {MAX_SLO_MS:g} at most"
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
