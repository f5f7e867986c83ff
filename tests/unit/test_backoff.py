"""Sizes that clients choose: each rule as it is published, and ours."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.backoff import BACKOFFS, Outlook, backoff, hopeless, nearest_px
from jellyfish.errors import ConfigError

SIZES, WEIGHTS = (128, 320, 608), (3_000.0, 15_000.0, 50_000.0)


def seen(told_px: int = 608, kbps: float = 100_000, fps: float = 10, **more: Any) -> Outlook:
    values = {"input_px": SIZES, "frame_bytes": WEIGHTS, "slo_ms": 100.0} | more
    return Outlook(told_px=told_px, kbps=kbps, fps=fps, **values)


@pytest.mark.parametrize(
    ("told", "kbps", "sent"),
    [
        (608, 100_000, 608),  # all is carried: as told
        (320, 100_000, 320),  # never above what the server named
        (608, 4_000, 320),  # 10 fps of 608 px need just 4 Mbit/s: not enough
        (608, 4_001, 608),
        (608, 300, 128),
        (608, 1, 128),  # nothing is carried: the smallest
        (500, 100_000, 320),  # a size that the zoo has not: the next below
        (64, 100_000, 128),
    ],
)
def test_best_back_off(told: int, kbps: float, sent: int) -> None:
    assert backoff("best")(seen(told, kbps)) == sent


@given(st.sampled_from(SIZES), st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0.1, 100))
def test_more_bandwidth_never_sends_less(told: int, a: float, b: float, fps: float) -> None:
    for name in ("best", "in_time", "aggressive", "slo_share"):
        low, high = (backoff(name)(seen(told, kbps, fps)) for kbps in sorted((a, b)))
        assert low <= high <= told, name


def test_published_alternatives() -> None:
    assert backoff("none")(seen(608, 1)) == 608
    assert backoff("aggressive")(seen(608, 4_001)) == 608
    assert backoff("aggressive")(seen(608, 4_000)) == 128  # not one step, but all of them
    assert backoff("independent")(seen(128, 100_000)) == 608
    assert backoff("independent")(seen(128, 4_000)) == 320
    assert backoff("fixed")(seen(608, 1)) == 320  # 352 is not in this zoo
    assert backoff("slo_share")(seen(608, 17_000)) == 608  # 400 kbit in 23.5 ms of 25
    assert backoff("slo_share")(seen(608, 15_000)) == 320
    assert backoff("slo_share")(seen(128, 100_000)) == 128


def test_ours_leaves_time_for_what_is_ahead_and_for_the_server() -> None:
    ours = backoff("in_time")
    assert ours(seen(kbps=10_000, device_ms=10, server_ms=45)) == 608  # 40 ms for 400 kbit
    assert ours(seen(kbps=10_000, device_ms=10, server_ms=55)) == 320
    assert ours(seen(kbps=10_000, device_ms=10, server_ms=45, ahead_ms=10)) == 320
    assert ours(seen(kbps=10_000, ahead_ms=500)) == 128  # whether to send at all is not its affair


def test_hopeless_is_what_even_the_smallest_cannot_make() -> None:
    assert not hopeless(seen(kbps=1_000, device_ms=2, ahead_ms=50), server_ms=24)  # 24 kbit
    assert hopeless(seen(kbps=1_000, device_ms=2, ahead_ms=50), server_ms=24.1)


def test_the_nearest_size_is_never_larger_unless_all_are() -> None:
    assert [nearest_px(SIZES, px) for px in (100, 128, 319, 320, 1000)] == [128, 128, 128, 320, 608]


def test_an_unknown_back_off_is_named() -> None:
    with pytest.raises(ConfigError, match="'aggresive'; there are aggressive, best"):
        backoff("aggresive")
    assert all(BACKOFFS[name] is backoff(name) for name in BACKOFFS)
