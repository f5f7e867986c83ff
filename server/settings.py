"""What the engine is told once: limits and intervals, and the profile as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from jellyfish.policy import Policy
from jellyfish.profile import Profile
from jellyfish.shares import reckoned_profile, slo_share
from server.limits import Limits

RUN_TIMEOUT_P99 = 5.0  # of a batch's profiled p99: no batch takes so long
HAND_OVER_BYTES_S = 10e6  # the worker of a busy machine takes frames at least as fast


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Limits and intervals of the engine.

    Args:
        plan_interval_s: a new plan at least this often while there are clients.
        plan_timeout_s: a scheduler that takes longer for a plan is started anew.
        cached_dnns: how many DNNs a worker keeps on its device.
        wire_ms: latency of the wire, one way, as the scheduler reckons with it.
        max_clients: more are turned away.
        run_timeout_s: a worker that takes longer for a batch counts as dead, unless five times the
            batch's p99 are longer, and the time that handing it over may take.
        load_timeout_s: a worker that takes longer to start or to load a DNN counts as dead.
        restart_s: first and longest pause after a failed try to start a worker; it doubles.
        check_images: refuse what is no JPEG that a worker may decode (jellyfish.jpeg). Emulated
            devices decode nothing, and their frames need be no JPEG.
    """

    plan_interval_s: float = 0.5
    plan_timeout_s: float = 1.0
    cached_dnns: int = 5
    wire_ms: float = 0.5
    max_clients: int = 256
    run_timeout_s: float = 0.5
    load_timeout_s: float = 60.0
    restart_s: tuple[float, float] = (0.25, 2.0)
    check_images: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Profile, policy and config. The profile's numbers once more as tuples of Python numbers:
    the path of a frame asks for single ones, which numpy is slow at.

    `limits`: how many bytes frames may take (server.limits).
    `reckoned` and `slo_share`: what the policy's budgets reckon with (jellyfish.shares).
    """

    profile: Profile
    policy: Policy
    config: EngineConfig
    limits: Limits = field(init=False)
    reckoned: Profile = field(init=False)
    slo_share: float = field(init=False)
    reckoned_bytes: tuple[float, ...] = field(init=False)
    input_px: tuple[int, ...] = field(init=False)
    frame_bytes: tuple[float, ...] = field(init=False)
    latency_ms: tuple[tuple[float, ...], ...] = field(init=False)  # [dnn][batch - 1]

    def __post_init__(self) -> None:
        profile = self.profile
        object.__setattr__(self, "limits", Limits.of(profile, self.config.max_clients))
        reckoned = reckoned_profile(self.policy.server_budget, profile)
        object.__setattr__(self, "reckoned", reckoned)
        share = slo_share(self.policy.server_budget) * self.policy.slo_stretch
        object.__setattr__(self, "slo_share", share)
        object.__setattr__(self, "reckoned_bytes", tuple(reckoned.frame_bytes.tolist()))
        object.__setattr__(self, "input_px", tuple(int(px) for px in profile.input_px))
        object.__setattr__(self, "frame_bytes", tuple(profile.frame_bytes.tolist()))
        object.__setattr__(self, "latency_ms", tuple(map(tuple, profile.latency_ms.tolist())))

    def run_timeout_s(self, dnn: int, batch: int, weight: int) -> float:
        """Return after how long a worker that runs such a batch, of `weight` bytes, is dead."""
        sizes = self.latency_ms[dnn]
        p99_ms = sizes[min(batch, len(sizes)) - 1]
        running_s = max(self.config.run_timeout_s, RUN_TIMEOUT_P99 * p99_ms / 1000)
        return running_s + weight / HAND_OVER_BYTES_S
