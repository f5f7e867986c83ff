"""A trace's two questions are each other's inverse, whatever its steps."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.errors import ConfigError
from jellyfish.trace import Trace, constant, from_rates

rates = st.one_of(st.just(0.0), st.floats(0.01, 1000), st.sampled_from([7.5, 10.0, 15.0, 20.0]))
step_lengths = st.one_of(st.floats(0.001, 100), st.sampled_from([0.1, 0.3, 1.0, 2.0, 20.0]))
traces = st.builds(
    Trace,
    name=st.just("any"),
    mbps=st.lists(rates, min_size=1, max_size=12).filter(any).map(tuple),
    step_s=step_lengths,
)
times = st.one_of(st.floats(0, 1e4), st.integers(0, 1000).map(float))
messages = st.one_of(st.integers(8, 10**8), st.floats(1, 1e9))


def close(a: float, b: float) -> bool:
    return a == pytest.approx(b, rel=1e-9, abs=1e-6)


@given(traces, times, messages)
def test_departure_inverts_bits_until(trace: Trace, t: float, bits: float) -> None:
    left = trace.departure(t, bits)
    before = trace.bits_until(t)
    assert left >= t
    assert trace.bits_until(left) - before == pytest.approx(bits, rel=1e-6, abs=1e-9 * before + 1)


@given(traces, times, st.floats(0, 1e3))
def test_departure_is_the_earliest_moment(trace: Trace, t: float, later: float) -> None:
    bits = trace.bits_until(t + later) - trace.bits_until(t)
    assert trace.departure(t, bits) <= t + later + 1e-6


@given(traces, times, messages)
def test_nothing_leaves_during_a_step_of_rate_zero(trace: Trace, t: float, bits: float) -> None:
    left = trace.departure(t, bits)
    assert trace.bits_until(left - 1e-6) < trace.bits_until(left)


@given(traces, times, times)
def test_bits_never_fall(trace: Trace, a: float, b: float) -> None:
    early, late = sorted((a, b))
    bits = trace.bits_until(early), trace.bits_until(late)
    assert bits[0] <= bits[1] or close(*bits)


@given(traces, times, times, messages, messages)
def test_departures_keep_their_order(
    trace: Trace, a: float, b: float, some: float, more: float
) -> None:
    early, late = sorted((a, b))
    few, many = sorted((some, more))
    first, second = trace.departure(early, few), trace.departure(late, many)
    assert first <= second or close(first, second)


@given(traces, times, messages, messages)
def test_two_messages_leave_as_one(trace: Trace, t: float, a: float, b: float) -> None:
    apart, together = trace.departure(trace.departure(t, a), b), trace.departure(t, a + b)
    done = trace.bits_until(together)  # in bits: a gap in time may be a step of rate 0
    assert trace.bits_until(apart) == pytest.approx(done, rel=1e-9, abs=1)


@given(traces, times, messages, st.integers(1, 50))
def test_every_period_is_alike(trace: Trace, t: float, bits: float, periods: int) -> None:
    shift = periods * trace.period_s
    total = trace.bits_until(trace.period_s * 2) / 2
    assert close(trace.bits_until(t + shift) - trace.bits_until(t), periods * total)
    carried = trace.bits_until(trace.departure(t + shift, bits)) - periods * total
    assert carried == pytest.approx(trace.bits_until(t) + bits, rel=1e-7, abs=1)


@given(traces, st.integers(-30, 30), st.floats(0, 100))
def test_shifted_starts_later(trace: Trace, steps: int, t: float) -> None:
    moved = trace.shifted(steps)
    offset = (steps % len(trace.mbps)) * trace.step_s
    expected = trace.bits_until(t + offset) - trace.bits_until(offset)
    assert moved.bits_until(t) == pytest.approx(expected, rel=1e-6, abs=1)
    assert moved.period_s == trace.period_s


def test_a_message_across_a_step_pays_both_rates() -> None:
    trace = from_rates("steps", [20, 0, 7.5], 2)
    assert trace.departure(1.9, 2e6) == pytest.approx(1.9 + 0.1)  # just fits before the idle step
    assert trace.departure(1.9, 2e6 + 7.5e5) == pytest.approx(4.1)
    assert trace.departure(2.5, 15e6) == pytest.approx(6.0)  # the end of the period, not later
    assert trace.departure(2.5, 15e6 + 20e6) == pytest.approx(7.0)
    assert trace.departure(3.0, 0) == 3.0
    assert [trace.rate_kbps(t) for t in (0, 2, 5.9, 6)] == [20_000, 0, 7_500, 20_000]


def test_a_constant_trace_divides() -> None:
    assert constant("ten", 10).departure(123.25, 5e6) == pytest.approx(123.75)


@pytest.mark.parametrize(
    ("mbps", "step_s", "says"),
    [
        ((), 1, "no steps"),
        ((1.0, nan), 1, "step 1 has rate nan"),
        ((1.0, inf), 1, "step 1 has rate inf"),
        ((-1.0,), 1, "step 0 has rate -1"),
        ((0.0, 0.0), 1, "carries 0 bits"),
        ((1e308,), 1, "carries inf bits"),
        ((1.0,), 0, "step_s must be positive"),
        ((1.0,), nan, "step_s must be positive"),
    ],
)
def test_impossible_traces_are_refused(mbps: tuple[float, ...], step_s: float, says: str) -> None:
    with pytest.raises(ConfigError, match=f"trace odd: .*{says}"):
        Trace(name="odd", mbps=mbps, step_s=step_s)
