"""What a client knows of its uplink, against a link that is a plain FIFO."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.errors import ConfigError
from jellyfish.uplink import ESTIMATORS, ServerTime, Uplink

RATES = st.lists(st.floats(500, 100_000), min_size=1, max_size=40)


def ideal(estimator: str = "quick") -> Uplink:
    return Uplink(estimator, wire_ms=0.0)


def test_queueing_behind_one_s_own_frames_is_no_lack_of_bandwidth() -> None:
    quick, published = ideal(), ideal("filter")
    for uplink in (quick, published):
        for k in range(3):  # at once: 80 kbit each over 8 Mbit/s
            uplink.sent(k, 10_000, 320, now_s=0.0)
        for k in range(3):
            uplink.acknowledged(k, 0.01 * (k + 1), server_ms=0.0)
    assert quick.kbps(0.04) == pytest.approx(8000)
    assert published.kbps(0.04) < 4000


def test_a_fall_is_believed_at_once_and_a_rise_by_halves() -> None:
    uplink = ideal()
    for k, ms in enumerate((10, 20, 10, 10)):
        uplink.sent(k, 10_000, 320, now_s=float(k))
        uplink.acknowledged(k, k + ms / 1000, server_ms=0.0)
        assert uplink.kbps(k + 0.5) == pytest.approx([8000, 4000, 6000, 7000][k])


def test_a_late_acknowledgement_tells_before_it_comes() -> None:
    uplink = ideal()
    uplink.sent(0, 10_000, 320, now_s=0.0)
    uplink.acknowledged(0, 0.01, server_ms=0.0)
    uplink.sent(1, 10_000, 320, now_s=1.0)
    assert uplink.kbps(1.01) == pytest.approx(8000)
    assert uplink.kbps(1.011) == pytest.approx(8000)
    assert uplink.kbps(1.082) == pytest.approx(1000 / 1.5, rel=0.01)  # and it will take longer yet
    published = ideal("filter")
    published.sent(0, 10_000, 320, now_s=0.0)
    assert published.kbps(9.0) == pytest.approx(100_000)


def test_what_is_ahead_drains_with_time() -> None:
    uplink = Uplink("quick", wire_ms=1.0)
    assert uplink.ahead_ms(0.0, 8000) == pytest.approx(1.8)  # the wire alone
    assert not uplink.busy
    uplink.sent(0, 10_000, 320, now_s=0.0)
    uplink.sent(1, 20_000, 320, now_s=0.0)
    assert uplink.busy
    assert uplink.ahead_ms(0.0, 8000) == pytest.approx(31.8)
    assert uplink.ahead_ms(0.005, 8000) == pytest.approx(26.8)
    uplink.acknowledged(0, 0.0118, server_ms=0.0)
    assert uplink.ahead_ms(0.0118, 8000) == pytest.approx(20)
    assert uplink.ahead_ms(0.1, 8000) > 5  # overdue: it is not there yet


def test_an_acknowledgement_covers_all_that_was_sent_before() -> None:
    uplink = ideal()
    for k in range(3):
        uplink.sent(k, 10_000, 320, now_s=0.0)
    uplink.acknowledged(2, 0.03, server_ms=0.0)
    assert not uplink.busy
    uplink.acknowledged(1, 0.04, server_ms=0.0)  # and one that is out of order is ignored
    uplink.acknowledged(7, 0.04, server_ms=0.0)
    assert not uplink.busy


def test_margins_grow_with_change() -> None:
    steady, shaky = ideal(), ideal()
    for k in range(20):
        for uplink, ms in ((steady, 10), (shaky, 10 + 10 * (k % 2))):
            uplink.sent(k, 10_000, 320, now_s=float(k))
            uplink.acknowledged(k, k + ms / 1000, server_ms=0.0)
    assert steady.cautious_kbps(20, 2.0) == pytest.approx(steady.kbps(20))
    assert shaky.cautious_kbps(20, 2.0) < 0.9 * shaky.kbps(20)
    assert shaky.cautious_kbps(20, 0.0) == shaky.kbps(20)


@given(RATES)
def test_quick_follows_any_series_of_rates(rates: list[float]) -> None:
    uplink, now_s = ideal(), 0.0
    for k, kbps in enumerate(rates):
        uplink.sent(k, 10_000, 320, now_s)
        now_s += 80_000 / kbps / 1000
        uplink.acknowledged(k, now_s, server_ms=0.0)
        assert min(rates[: k + 1]) * 0.999 <= uplink.kbps(now_s) <= max(rates[: k + 1]) * 1.001


@given(st.sampled_from(sorted(ESTIMATORS)), st.floats(), st.floats(0, 10), st.integers(-9, 10**9))
def test_estimates_are_usable_whatever_is_acknowledged(
    name: str, server_ms: float, after_s: float, size: int
) -> None:
    uplink = Uplink(name, wire_ms=0.5)
    uplink.sent(0, size, 320, now_s=0.0)
    uplink.acknowledged(0, after_s, server_ms)
    uplink.sent(1, size, 320, now_s=after_s)
    kbps = uplink.kbps(after_s + 1)
    assert 0 < kbps < inf
    assert isfinite(uplink.ahead_ms(after_s + 1, kbps))


def test_an_unknown_estimator_is_named() -> None:
    with pytest.raises(ConfigError, match="'oracle'; there are: filter, quick"):
        Uplink("oracle", 0.5)


def test_server_time_forgets_after_a_second() -> None:
    took = ServerTime(fps=5)
    assert took.quantile(0.5) is None
    for ms in (50, 10, 20, 30, 40, 15):
        took.took(ms)
    assert took.quantile(0.0) == 10
    assert took.quantile(0.5) == 20
    assert took.quantile(1.0) == 40
    assert took.quantile(0.9) is not nan
