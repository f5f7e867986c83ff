import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.adaptation import server_px
from jellyfish.batching import choose, worthwhile_batch
from jellyfish.caching import nearest_dnns
from jellyfish.errors import ConfigError
from jellyfish.policy import POLICIES, policy

LATENCY = (10.0, 16.0, 22.0, 28.0)
OURS = policy("jellyfish")
PAPER = policy("paper")


def test_a_full_batch_runs_at_once_tightest_first() -> None:
    choice = choose([60, 61, 62, 63, 64], LATENCY, 4, OURS)
    assert choice.take == (0, 1, 2, 3)
    assert not choice.drop


def test_waits_for_a_fuller_batch_only_while_the_tightest_has_slack() -> None:
    waits = choose([100.0, 200.0], LATENCY, 4, OURS)
    assert not waits.take
    assert waits.wait_ms == pytest.approx(100 - 28 - OURS.batch_slack_ms)
    assert choose([37.0, 200.0], LATENCY, 4, OURS).take == (0, 1)
    assert choose([100.0, 200.0], LATENCY, 4, OURS, worthwhile=2).take == (0, 1)
    assert not choose([100.0], LATENCY, 4, OURS, worthwhile=2).take


def test_a_fuller_batch_is_worth_a_wait_only_when_smaller_ones_cannot_keep_up() -> None:
    assert worthwhile_batch(LATENCY, 4, 90, OURS) == 1  # one alone does 100 frames/s
    assert worthwhile_batch(LATENCY, 4, 100, OURS) == 2
    assert worthwhile_batch(LATENCY, 4, 130, OURS) == 3
    assert worthwhile_batch(LATENCY, 4, 500, OURS) == 4
    assert worthwhile_batch(LATENCY, 2, 500, OURS) == 2
    assert worthwhile_batch(LATENCY, 4, 90, PAPER) == 4
    assert worthwhile_batch(LATENCY, 4, 500, OURS, draining=True) == 1


def test_a_batch_of_one_never_waits() -> None:
    assert choose([500.0], LATENCY, 1, OURS).take == (0,)


def test_what_cannot_make_it_even_alone_is_dropped() -> None:
    choice = choose([4.9, 100.0], LATENCY, 1, OURS)
    assert choice.drop == (0,)
    assert choice.take == (1,)
    assert choose([5.1, 100.0], LATENCY, 1, OURS).take == (0,)  # within the tolerance


def test_without_a_backlog_a_batch_shrinks_for_its_tightest_frame() -> None:
    choice = choose([12.0, 90.0, 91.0], LATENCY, 4, OURS)
    assert choice.take == (0, 1)  # 16 ms, within tolerance; 22 ms is not
    assert not choice.drop


def test_with_a_backlog_a_frame_that_asks_for_small_batches_is_dropped() -> None:
    choice = choose([12.0, 90.0, 91.0, 92.0, 93.0], LATENCY, 4, OURS)
    assert choice.drop == (0,)
    assert choice.take == (1, 2, 3, 4)


def test_the_published_queue_holds_every_frame_to_the_planned_batch() -> None:
    choice = choose([30.0, 22.0, 40.0, 35.0], LATENCY, 4, PAPER)
    assert choice.drop == (1,)  # 28 ms is more than 5 ms after 22 ms
    assert choice.take == (0, 2, 3)


def test_the_published_queue_is_looked_at_only_as_far_as_the_batch_goes() -> None:
    choice = choose([30.0, 31.0, 1.0], LATENCY, 2, PAPER)
    assert choice.take == (0, 1)
    assert not choice.drop


@given(
    remaining=st.lists(st.floats(-100, 300), max_size=12),
    batch=st.integers(1, 4),
    name=st.sampled_from(sorted(POLICIES)),
    worthwhile=st.none() | st.integers(1, 4),
)
def test_choices_are_sound(
    remaining: list[float], batch: int, name: str, worthwhile: int | None
) -> None:
    rules = policy(name)
    if rules.queue_order == "edf":
        remaining.sort()
    choice = choose(remaining, LATENCY, batch, rules, worthwhile=worthwhile)
    assert len(choice.take) <= batch
    assert not set(choice.take) & set(choice.drop)
    size = batch if rules.pad_batches else len(choice.take)
    for i in choice.take:  # whatever runs can make its deadline
        assert LATENCY[size - 1] - remaining[i] <= rules.drop_tolerance_ms
    for i in choice.drop:  # whatever is dropped could not, in a planned batch
        assert LATENCY[batch - 1] - remaining[i] > rules.drop_tolerance_ms
    if worthwhile == 1:
        assert choice.wait_ms is None
    if choice.wait_ms is not None:
        assert choice.wait_ms > 0
        assert not choice.take
    if remaining:  # something always happens: a run, a drop or a timer
        assert choice.take or choice.drop or choice.wait_ms is not None


def _told(**changes: float) -> int:
    values = {
        "dnn": 2,
        "batch_ms": 20.0,
        "spare_ms": 95.0,
        "bandwidth_kbps": 20_000.0,
        "fps": 10.0,
        "wire_ms": 0.5,
        "response_bytes": 300.0,
    }
    sizes = {"input_px": (128, 256, 384), "frame_bytes": (3e3, 9e3, 17e3)}
    return server_px(**{**sizes, **values, **changes})  # type: ignore[arg-type]


def test_the_next_size_is_the_mapped_dnn_s_while_network_and_budget_carry_it() -> None:
    assert _told() == 384
    assert _told(bandwidth_kbps=1300.0) == 128  # 17 kB x 10 fps is 1360 kbit/s; 9 kB take 55 ms
    assert _told(bandwidth_kbps=1000.0, spare_ms=500.0) == 256
    assert _told(spare_ms=45.0) == 256
    assert _told(spare_ms=1.0) == 128
    assert _told(dnn=0, spare_ms=-5.0) == 128


def test_the_nearest_dnns_come_most_urgent_first() -> None:
    assert nearest_dnns(4, 16, 5) == [4, 3, 5, 2, 6]
    assert nearest_dnns(0, 16, 5) == [0, 1, 2, 3, 4]
    assert nearest_dnns(15, 16, 3) == [15, 14, 13]
    assert nearest_dnns(1, 3, 9) == [1, 0, 2]
    assert nearest_dnns(1, 3, 0) == [1]


def test_an_unknown_policy_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'cleverest'.*paper, jellyfish"):
        policy("cleverest")
