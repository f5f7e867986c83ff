"""What the default scenario must show once `make` has made it: run by `make check`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.results


@pytest.fixture(scope="module")
def both_worlds(root: Path) -> pd.DataFrame:
    path = root / "results" / "default" / "scores_by_cell.parquet"
    assert path.is_file(), f"{path} is missing; `make` makes it"
    return pd.read_parquet(path)


@pytest.fixture(scope="module")
def scores(both_worlds: pd.DataFrame) -> pd.DataFrame:
    """What was measured."""
    return both_worlds[both_worlds["world"] == "measured"]


@pytest.fixture(scope="module")
def simulated(both_worlds: pd.DataFrame) -> pd.DataFrame:
    return both_worlds[both_worlds["world"] == "simulated"]


@pytest.fixture(scope="module")
def fig_7(root: Path, scores: pd.DataFrame) -> pd.Series:
    wanted = yaml.safe_load((root / "config" / "config.yaml").read_text())["figures"]["fig_7"]
    found = scores[
        (scores["trace"] == wanted["trace"])
        & (scores["clients"] == wanted["clients"])
        & (scores["slo"] == f"{wanted['slo_ms']:g}")
        & (scores["fps"] == f"{wanted['fps']:g}")
    ]
    assert len(found) == 1
    row: pd.Series = found.iloc[0]
    return row


def test_the_dnn_is_adapted_in_fig_7(fig_7: pd.Series) -> None:
    assert fig_7["dnns_used"] >= 4


def test_the_size_follows_the_trace_in_fig_7(fig_7: pd.Series) -> None:
    assert fig_7["px_trace_rho"] > 0.5


def test_more_clients_cost_accuracy(scores: pd.DataFrame) -> None:
    by_clients = scores.groupby("clients")["f1_strict_all"].mean().sort_index()
    assert by_clients.iloc[0] - by_clients.iloc[-1] >= 0.1


def test_cells_stand_on_both_sides_of_one_percent_misses(scores: pd.DataFrame) -> None:
    assert (scores["miss_rate"] < 0.01).any()
    assert (scores["miss_rate"] > 0.01).any()


def test_simulated_rows_say_whose_latencies_they_have(simulated: pd.DataFrame) -> None:
    assert len(simulated) == 4 * 3 * 2
    assert set(simulated["latencies"]) == {"emulated synthetic"}


def test_simulated_clients_pay_for_a_tight_slo_and_a_crowd(simulated: pd.DataFrame) -> None:
    by_slo = simulated.groupby(simulated["slo"].astype(float))["f1_strict_all"].mean()
    assert by_slo[75.0] < by_slo[100.0] < by_slo[150.0]
    by_clients = simulated.groupby("clients")["f1_strict_all"].mean()
    assert by_clients[8] < by_clients[1]


def test_simulated_deadlines_hold(simulated: pd.DataFrame) -> None:
    missed = (simulated["miss_rate"] * simulated["frames"]).sum() / simulated["frames"].sum()
    assert missed < 0.01
