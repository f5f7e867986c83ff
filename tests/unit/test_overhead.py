import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.overhead import FIRST_MS, MARGIN_MS, Overhead


def test_an_overhead_has_a_tail() -> None:
    mean, tail = Overhead(0.1), Overhead(0.1, tail=2.0)
    for i in range(200):
        for overhead in (mean, tail):
            overhead.dispatched(1.0 if i % 10 else 6.0, i / 30)
    now_s = 199 / 30
    assert mean.dispatch_ms(now_s) == pytest.approx(1.5, abs=0.5)
    assert tail.dispatch_ms(now_s) > mean.dispatch_ms(now_s) + 1
    assert tail.ms(now_s) == tail.dispatch_ms(now_s) + MARGIN_MS


def test_one_pause_of_a_second_is_forgotten_though_no_batch_runs() -> None:
    overhead = Overhead(0.1, tail=2.0)
    for i in range(30):
        overhead.dispatched(0.5, i / 30)
    usual_ms = overhead.dispatch_ms(1.0)
    overhead.dispatched(1000.0, 2.0)
    assert overhead.dispatch_ms(2.0) > 100
    assert overhead.dispatch_ms(7.0) < usual_ms + FIRST_MS


def test_one_pause_counts_no_more_than_the_limit() -> None:
    overhead = Overhead(0.1, tail=2.0)
    overhead.limit_ms = 37.5
    for i in range(30):
        overhead.dispatched(0.5, i / 30)
    overhead.dispatched(1000.0, 1.0)
    assert overhead.dispatch_ms(1.0) < 15
    for i in range(100):
        overhead.dispatched(1000.0, 1 + i)
    assert overhead.dispatch_ms(100.0) <= 37.5


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 10)), max_size=30), st.floats(10, 1e3))
def test_whatever_was_measured_it_decays(values: list[tuple[float, float]], limit: float) -> None:
    overhead, now_s = Overhead(0.5, tail=2.0), 0.0
    overhead.limit_ms = limit
    for dispatch_ms, gap_s in values:
        now_s += gap_s
        overhead.dispatched(dispatch_ms, now_s)
        assert 0 <= overhead.dispatch_ms(now_s) <= limit
    assert overhead.dispatch_ms(now_s + 60) == pytest.approx(FIRST_MS, abs=0.01)
    assert np.isfinite(overhead.ms(now_s))
