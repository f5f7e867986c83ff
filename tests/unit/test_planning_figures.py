"""The figures of the simulations of the scheduler, drawn from tables as their stages write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiment import planning_runs
from jellyfish.errors import DataError
from scripts.figures import fig_sim_quality, fig_sim_timings, style
from tests.unit.test_figures import check_drawn

BASE = {"world": "simulated", "latencies": "emulated synthetic", "machine": "a CPU"}
LOSSES = {"paper": 0.01, "jellyfish, 50 steps": 0.001, "optimum": 0.0}


def table(gpus: int, clients: int, solvers: Sequence[str], instances: int = 30) -> pd.DataFrame:
    """Return a size's table with made-up numbers; the optimum of every instance is .5."""
    rng = np.random.default_rng([gpus, clients])
    parts = []
    for solver in solvers:
        slow = {"paper": 1.0, "optimum": 100.0}.get(solver, 0.1)
        times = slow * gpus * rng.uniform(0.8, 1.4, instances)
        proof = solver == "optimum"
        values = {
            "gpus": gpus,
            "clients": clients,
            "seed": np.arange(instances),
            "solver": solver.partition(",")[0],
            "effectiveness": 1.0,
            "accuracy": 0.5 * (1 - LOSSES[solver] * rng.uniform(0, 1, instances)),
            "effectiveness_bound": 1.0 if proof else np.nan,
            "accuracy_bound": 0.5 if proof else np.nan,
            "ended": True,
            "cpu_ms": times,
            "wall_ms": times * 1.1,
            "contender": solver,
            "limit_s": 1.0 if proof else np.nan,
            "rejected": 7,
        }
        parts.append(pd.DataFrame({**BASE, **values}))
    return pd.concat(parts, ignore_index=True)


def written(folder: Path, *sizes: pd.DataFrame) -> list[Path]:
    paths = [folder / f"{i}.parquet" for i in range(len(sizes))]
    for path, rows in zip(paths, sizes, strict=True):
        rows.to_parquet(path)
    return paths


def test_they_read_columns_that_are_written() -> None:
    columns = {*fig_sim_quality.COLUMNS, *fig_sim_timings.COLUMNS}
    assert columns <= set(planning_runs.COLUMNS)
    assert list(table(2, 8, ["paper"])) == list(planning_runs.COLUMNS)


def test_fig_sim_quality_draws_and_counts(tmp_path: Path) -> None:
    sizes = [table(g, g * per, list(LOSSES)) for g in (2, 16) for per in (4, 10)]
    out = tmp_path / "fig_sim_quality.png"
    fig_sim_quality.draw(sizes=written(tmp_path, *sizes), out=out)
    check_drawn(out, style.TEXT_IN)
    found = pd.read_csv(out.with_suffix(".csv"))
    assert found["gpus"].tolist() == [2, 2, 2, 2, 16, 16, 16, 16]
    assert set(found["contender"]) == {"paper", "jellyfish, 50 steps"}
    paper = found[found["contender"] == "paper"]
    assert paper["ratio_mean"].between(0.99, 0.998).all()
    assert (paper["ratio_min"] < paper["ratio_mean"]).all()
    assert set(found["rejected"]) == {7}
    assert set(found["proven"]) == {30}


def test_an_instance_without_proof_is_held_against_its_bound() -> None:
    rows = table(2, 8, ["paper", "optimum"], instances=2)
    proofs = rows["contender"] == "optimum"
    rows.loc[proofs & (rows["seed"] == 1), ["accuracy_bound", "ended"]] = [0.8, False]
    rows["accuracy"] = 0.4
    rows.loc[rows["contender"] == "paper", "effectiveness"] = 0.5
    found = fig_sim_quality.ratios(rows)
    assert found["ratio"].tolist() == pytest.approx([0.8, 0.5])
    assert found["proven"].tolist() == [True, False]
    said = fig_sim_quality._note(found)
    assert "1 of 2 against a bound: no proof in time" in said
    assert "fewer clients mapped than possible in 2 of 2 plans" in said


def test_fig_sim_quality_needs_a_solver(tmp_path: Path) -> None:
    paths = written(tmp_path, table(2, 8, ["optimum"]))
    with pytest.raises(DataError, match="no solver beside the optimum"):
        fig_sim_quality.draw(sizes=paths, out=tmp_path / "fig.png")
    paths[0].unlink()
    with pytest.raises(DataError, match=r"0\.parquet is missing"):
        fig_sim_quality.draw(sizes=paths, out=tmp_path / "fig.png")
    assert not list(tmp_path.glob("fig.*"))


@pytest.mark.parametrize("loads", [[10], [4, 10]])
def test_fig_sim_timings_draws_a_row_a_load(tmp_path: Path, loads: list[int]) -> None:
    sizes = [table(g, g * per, list(LOSSES)) for g in (2, 16, 256) for per in loads]
    sizes[-1].loc[sizes[-1]["contender"] == "optimum", "ended"] = False
    out = tmp_path / "fig_sim_timings.png"
    fig_sim_timings.draw(sizes=written(tmp_path, *sizes), out=out, interval_s=0.5)
    check_drawn(out, style.TEXT_IN)
    assert len(pd.read_csv(out.with_suffix(".csv"))) == 3 * 3 * len(loads)


def test_who_ran_into_the_limit_has_no_time() -> None:
    rows = table(2, 20, ["optimum"], instances=10)
    rows["cpu_ms"] = np.arange(10.0)
    rows.loc[9, "ended"] = False
    (first,) = fig_sim_timings.times(rows).to_dict("records")
    assert first["cpu_p50_ms"] == 5
    assert np.isnan(first["cpu_p99_ms"])
    assert (first["ended"], first["instances"], first["per_gpu"]) == (9, 10, 10)
    rows.loc[:, "ended"] = rows["cpu_ms"] < 4
    (second,) = fig_sim_timings.times(rows).to_dict("records")
    assert np.isnan(second["cpu_p50_ms"])
