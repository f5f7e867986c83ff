"""What the server takes off an SLO for the network: the published choices (RTSS 2022, V)."""

from __future__ import annotations

from jellyfish.backoff import FIXED_PX, NETWORK_SHARE, nearest_px
from jellyfish.errors import ConfigError
from jellyfish.profile import Profile

SERVER_BUDGETS = ("per_dnn", "fixed_frame", "fixed_share")
_NEXT_TO_NOTHING = 1.0  # bytes: a profile's frames must weigh something


def reckoned_profile(server_budget: str, profile: Profile) -> Profile:
    """Return the profile that latency budgets are worked out with.

    Under `fixed_frame` every frame weighs what one of the published fixed size does; under
    `fixed_share` the network is the client's affair, and frames weigh nothing to the server.

    Raises:
        ConfigError: there is no such budget.
    """
    if server_budget not in SERVER_BUDGETS:
        names = ", ".join(SERVER_BUDGETS)
        raise ConfigError(f"no server budget {server_budget!r}; there are: {names}")
    if server_budget == "per_dnn":
        return profile
    weight = _NEXT_TO_NOTHING
    if server_budget == "fixed_frame":
        sizes = [int(px) for px in profile.input_px]
        weight = float(profile.frame_bytes[sizes.index(nearest_px(sizes, FIXED_PX))])
    values = profile.as_dict() | {"frame_bytes": [weight] * profile.dnns}
    return Profile(**values)


def slo_share(server_budget: str) -> float:
    """Return which share of an SLO the server's budgets start from."""
    return 1 - NETWORK_SHARE if server_budget == "fixed_share" else 1.0
