"""Bandwidth estimates are right on a steady link, and usable whatever they are fed."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.bandwidth import ClientBandwidth, ErrorBasedFilter, ServerBandwidth

anything = st.floats(allow_nan=True, allow_infinity=True)


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


def test_the_server_s_window_is_a_choice() -> None:
    bandwidth = ServerBandwidth(fps=10, window_s=0.2)
    for kbps in (1000, 4000, 4000):
        bandwidth.report(kbps)
    assert bandwidth.kbps == pytest.approx(4000)
