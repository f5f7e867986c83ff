"""Problems like those of the published simulations of the scheduler, with the synthetic profile.

Frame rates of 10, 15 and 25, SLOs of 75, 100 and 150 ms, bandwidth uniform in 7.5 to 50 Mbit/s, a
random DNN on each GPU; nothing else takes time.
"""

from __future__ import annotations

import numpy as np

from jellyfish.profile import Profile
from jellyfish.scheduling.problem import Problem

INPUT_PX = tuple(range(128, 609, 32))
COMPRESSION = [4.78, 5.148, 5.365, 5.66, 5.782, 6.133, 6.431, 6.556]
COMPRESSION += [6.781, 6.953, 7.158, 7.421, 7.574, 7.739, 7.968, 8.131]
LARGEST_WORTH = 0.33 / (1 - np.exp(-(608 - 128) / 200))
PROFILE = Profile(
    input_px=INPUT_PX,
    frame_bytes=[px * px * 3 / ratio for px, ratio in zip(INPUT_PX, COMPRESSION, strict=True)],
    accuracy=[0.33 + LARGEST_WORTH * (1 - np.exp(-(px - 128) / 200)) for px in INPUT_PX],
    latency_ms=[
        [10 + 3 * (px - 128) / 480 + 22 * (px / 608) ** 2 * b for b in range(1, 9)]
        for px in INPUT_PX
    ],
)


def instance(gpus: int, clients: int, seed: int) -> Problem:
    """Return an instance of the published simulations; the same for the same arguments."""
    rng = np.random.default_rng([seed, gpus, clients])
    return Problem(
        gpus=gpus,
        profile=PROFILE,
        fps=rng.choice([10.0, 15.0, 25.0], clients),
        slo_ms=rng.choice([75.0, 100.0, 150.0], clients),
        bandwidth_kbps=rng.uniform(7_500, 50_000, clients),
        initial_dnns=rng.integers(0, len(INPUT_PX), gpus).tolist(),
    )
