"""What the default scenario must show once `make` has made it: run by `make check`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.results


@pytest.fixture(scope="module")
def scores(root: Path) -> pd.DataFrame:
    path = root / "results" / "default" / "scores_by_cell.parquet"
    assert path.is_file(), f"{path} is missing; `make` makes it"
    return pd.read_parquet(path)


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
    return found.iloc[0]


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
