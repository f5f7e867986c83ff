from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jellyfish.budget import latency_budget_ms, network_ms

CLIENT: dict[str, Any] = {
    "frame_bytes": [1_000, 4_000],
    "fps": [10],
    "slo_ms": [100],
    "bandwidth_kbps": [1_000],
}


def budget(**changes: Any) -> list[list[float]]:
    values: list[list[float]] = latency_budget_ms(**(CLIENT | changes)).tolist()
    return values


def test_network_time_is_bits_over_bandwidth_plus_the_wire_both_ways() -> None:
    assert network_ms(8_000, 1_000, 0.5) == 9.0


@pytest.mark.parametrize("kbps", [0.0, -1.0, float("nan")])
def test_nothing_arrives_over_a_bandwidth_that_is_none(kbps: float) -> None:
    assert network_ms(8_000, kbps, 0.5) == float("inf")


def test_everything_but_queueing_and_execution_is_taken_off_the_slo() -> None:
    assert budget() == [[92.0, 68.0]]
    spent = budget(wire_ms=0.5, device_ms=3, response_bytes=250, overhead_ms=4)
    assert spent == [[92.0 - 1 - 3 - 2 - 4, 68.0 - 1 - 3 - 2 - 4]]


def test_no_budget_where_the_bandwidth_does_not_carry_the_rate() -> None:
    assert budget(fps=[32]) == [[92.0, 0.0]]
    assert budget(fps=[125]) == [[0.0, 0.0]]  # 125 frames of 8 kbit are the whole bandwidth


def test_a_budget_is_never_negative() -> None:
    assert budget(slo_ms=[20]) == [[12.0, 0.0]]


@pytest.mark.parametrize("bad", [0.0, -5.0, float("nan"), -float("inf")])
@pytest.mark.parametrize("key", ["fps", "slo_ms", "bandwidth_kbps"])
def test_a_senseless_client_has_no_budget_and_harms_no_other(key: str, bad: float) -> None:
    two = {name: [CLIENT[name][0]] * 2 for name in ("fps", "slo_ms", "bandwidth_kbps")}
    two[key][0] = bad
    assert budget(**two) == [[0.0, 0.0], [92.0, 68.0]]


def test_clients_may_differ_in_wire_device_and_response() -> None:
    two = {name: [CLIENT[name][0]] * 2 for name in ("fps", "slo_ms", "bandwidth_kbps")}
    found = budget(**two, wire_ms=[0, 1], device_ms=[0, 2], response_bytes=[0, 125])
    assert found == [[92.0, 68.0], [87.0, 63.0]]


def test_no_clients_have_an_empty_budget() -> None:
    none = latency_budget_ms(frame_bytes=[1, 2], fps=[], slo_ms=[], bandwidth_kbps=[])
    assert none.shape == (0, 2)
    assert none.dtype == np.float64
