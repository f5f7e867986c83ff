"""Bandwidth estimates are right on a steady link, and usable whatever they are fed."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.backoff import backoff, best
from jellyfish.bandwidth import ClientBandwidth, ErrorBasedFilter, ServerBandwidth
from jellyfish.errors import ConfigError

anything = st.floats(allow_nan=True, allow_infinity=True)
SIZES, WEIGHTS = (128, 320, 608), (3_000.0, 15_000.0, 50_000.0)


def test_filter_follows_the_published_formula() -> None:
    smooth = ErrorBasedFilter()
    assert smooth.update(10) == 10
    assert smooth.update(20) == 20  # the first error is the worst so far: no trust
    # error 0.6 * 10 + 0.4 * 4 = 7.6, trust 1 - 7.6 / 10
    assert smooth.update(16) == pytest.approx(0.24 * 20 + 0.76 * 16)
    smooth.reset()
    assert smooth.update(3) == 3


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_filter_stays_within_what_it_saw(observations: list[float]) -> None:
    smooth = ErrorBasedFilter()
    estimates = [smooth.update(value) for value in observations]
    slack = 1e-9 * (1 + max(observations))
    assert all(min(observations) - slack <= e <= max(observations) + slack for e in estimates)


def test_filter_keeps_a_constant() -> None:
    smooth = ErrorBasedFilter()
    assert [smooth.update(5.0) for _ in range(20)] == [5.0] * 20


def test_client_divides_bits_by_network_time() -> None:
    bandwidth = ClientBandwidth(wire_ms=1.0, initial_kbps=5000)
    assert bandwidth.kbps == 5000
    bandwidth.acknowledged(10_000, 320, round_trip_ms=12.9, server_ms=2.0)  # 80 kbit in 10 ms
    assert bandwidth.kbps == pytest.approx(8000)


def test_client_starts_anew_when_the_size_changes() -> None:
    bandwidth = ClientBandwidth(wire_ms=0.0)
    for round_trip_ms in (10.0, 11.0, 10.5):
        bandwidth.acknowledged(10_000, 320, round_trip_ms, 0.0)
    bandwidth.acknowledged(1_000, 128, 1.0, 0.0)
    assert bandwidth.kbps == pytest.approx(8000)


def test_client_survives_a_wire_latency_above_the_measured_time() -> None:
    bandwidth = ClientBandwidth(wire_ms=50.0)
    bandwidth.acknowledged(10_000, 320, round_trip_ms=2.0, server_ms=1.0)
    assert isfinite(bandwidth.kbps)
    assert bandwidth.kbps > 100_000


@given(st.lists(st.tuples(st.integers(-10, 10**9), st.integers(0, 700), anything, anything)))
def test_client_estimate_is_always_usable(acks: list[tuple[int, int, float, float]]) -> None:
    bandwidth = ClientBandwidth(wire_ms=0.5)
    for ack in acks:
        bandwidth.acknowledged(*ack)
        assert 0 < bandwidth.kbps < inf


def test_server_takes_the_harmonic_mean_of_a_second() -> None:
    bandwidth = ServerBandwidth(fps=3, initial_kbps=1000)
    assert bandwidth.kbps == pytest.approx(1000)
    bandwidth.report(3000)
    assert bandwidth.kbps == pytest.approx(1500)  # the initial value counts
    for kbps in (2000, 2000, 2000):
        bandwidth.report(kbps)
    assert bandwidth.kbps == pytest.approx(2000)  # and leaves after a second


@pytest.mark.parametrize("nonsense", [0.0, -1.0, nan, inf, -inf])
def test_server_ignores_what_is_no_bandwidth(nonsense: float) -> None:
    bandwidth = ServerBandwidth(fps=2)
    bandwidth.report(4000)
    before = bandwidth.kbps
    bandwidth.report(nonsense)
    assert bandwidth.kbps == before


@given(st.floats(0.001, 1000), st.lists(anything, max_size=60))
def test_server_estimate_is_always_usable(fps: float, reports: list[float]) -> None:
    bandwidth = ServerBandwidth(fps)
    for kbps in reports:
        bandwidth.report(kbps)
        assert 0 < bandwidth.kbps < inf


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
    assert best(told, SIZES, WEIGHTS, kbps, 10) == sent


@given(st.sampled_from(SIZES), st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0.1, 100))
def test_more_bandwidth_never_sends_less(told: int, a: float, b: float, fps: float) -> None:
    low, high = sorted((a, b))
    sent = [best(told, SIZES, WEIGHTS, kbps, fps) for kbps in (low, high)]
    assert sent[0] <= sent[1] <= told


def test_policies_by_name() -> None:
    assert backoff("none")(608, SIZES, WEIGHTS, 1, 10) == 608
    with pytest.raises(ConfigError, match="best, none"):
        backoff("aggresive")
