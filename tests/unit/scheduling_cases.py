"""Problems for scheduler tests: by hand, drawn by hypothesis, and the published references."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from jellyfish.profile import Profile
from jellyfish.scheduling.problem import Problem

REFERENCE_CASES = Path(__file__).parents[1] / "data" / "reference_cases.jsonl.gz"

PROFILE = Profile(
    input_px=[100, 200, 300],
    frame_bytes=[1_000, 4_000, 9_000],
    accuracy=[0.3, 0.5, 0.6],
    latency_ms=[[10, 16, 24], [20, 36, 54], [40, 76, 114]],
)


def problem(*clients: tuple[float, float, float], **changes: Any) -> Problem:
    """Return a problem of (fps, slo_ms, bandwidth_kbps) clients, on one GPU unless told."""
    fps, slo_ms, bandwidth_kbps = zip(*clients, strict=True) if clients else ((), (), ())
    settings: dict[str, Any] = {"gpus": 1, "profile": PROFILE}
    return Problem(fps=fps, slo_ms=slo_ms, bandwidth_kbps=bandwidth_kbps, **(settings | changes))


def reference_cases() -> Iterator[dict[str, Any]]:
    """Yield the 200 measured answers of the published scheduler, each with its `Problem`."""
    with gzip.open(REFERENCE_CASES, "rt") as lines:
        for case in map(json.loads, lines):
            asked = case["problem"]
            clients: list[dict[str, float]] = asked["clients"]
            columns: dict[str, Any] = {key: [c[key] for c in clients] for key in clients[0]}
            case["problem"] = Problem(
                gpus=asked["gpus"],
                profile=Profile(**asked["profile"]),
                initial_dnns=asked["initial_dnns"],
                **columns,
            )
            yield case


_extremes = st.sampled_from([0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-300, 1e300])
_fps = st.integers(1, 12_000).map(lambda hundredths: hundredths / 100)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Draw a zoo of 1 to 4 DNNs at 1 to 4 batch sizes, throughput and accuracy of any shape."""
    dnns, batches = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    latency = st.floats(1, 60)
    return Profile(
        input_px=[100 * (m + 1) for m in range(dnns)],
        frame_bytes=draw(st.lists(st.floats(500, 20_000), min_size=dnns, max_size=dnns)),
        accuracy=draw(st.lists(st.floats(0, 1), min_size=dnns, max_size=dnns)),
        latency_ms=[
            draw(st.lists(latency, min_size=batches, max_size=batches)) for _ in range(dnns)
        ],
    )


@st.composite
def problems(draw: st.DrawFn, *, max_clients: int = 8, sane: bool = False) -> Problem:
    """Draw a problem; unless `sane`, any number of a client may be nonsense."""
    clients = draw(st.integers(0, max_clients))
    gpus = draw(st.integers(0, 3))
    profile = draw(profiles())

    def column(values: st.SearchStrategy[float]) -> list[float]:
        mixed = st.one_of(*[values] * 8, *[_extremes, st.floats()] * (not sane))
        return draw(st.lists(mixed, min_size=clients, max_size=clients))

    running = st.lists(st.integers(0, profile.dnns - 1), min_size=gpus, max_size=gpus)
    return Problem(
        gpus=gpus,
        profile=profile,
        fps=column(_fps),
        slo_ms=column(st.floats(40, 400)),
        bandwidth_kbps=column(st.floats(1_000, 100_000)),
        wire_ms=draw(st.floats(0, 5)),
        response_bytes=draw(st.floats(0, 2_000)),
        overhead_ms=draw(st.floats(0, 5)),
        initial_dnns=draw(running | st.just([])),
    )
