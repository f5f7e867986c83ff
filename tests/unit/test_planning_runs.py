"""The simulations of the scheduler: what is done once stays, until values or code change."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiment import planning_code, planning_runs
from experiment.leftovers import FORCED
from experiment.lock import held, lock_path
from experiment.planning import instance
from experiment.planning_runs import COLUMNS, PATIENCE, run_size
from experiment.planning_study import QUALITY, TIMINGS, Size
from jellyfish.files.provenance import read_provenance
from jellyfish.scheduling.solvers import SOLVERS, solver

ROOT = Path(__file__).resolve().parents[2]
SIZE = Size(2, 8)
PAPER = {"name": "paper", "solver": "paper"}
CONFIG: dict[str, Any] = {
    "seed": 1,
    "scenario": "test",
    "planning": {
        "quality": {
            "gpus": [2],
            "clients_per_gpu": [4],
            "instances": 12,
            "proof_s": 60,
            "solvers": [PAPER, {"name": "ours", "solver": "jellyfish", "steps": 5}],
        },
        "timings": {
            "gpus": [2],
            "clients_per_gpu": [4],
            "instances": 4,
            "solvers": [PAPER | {"limit_s": 60}],
        },
    },
}
TIMES = ["cpu_ms", "wall_ms"]

pytestmark = pytest.mark.timeout(400)  # the first may have to compile the solver


def asked(stage: str, **changes: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config["planning"][stage] |= changes
    return config


def rows_of(config: dict[str, Any], stage: str, results: Path) -> pd.DataFrame:
    """Do a stage; code is that of the copy beside the results, which a test may edit."""
    return pd.read_parquet(run_size(config, stage, SIZE, results, results.parent / "code"))


def copy_code(folder: Path) -> None:
    for name in ("jellyfish", "experiment"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def units_made(results: Path) -> dict[str, int]:
    """Return when each unit was written, by its key."""
    return {path.name: path.stat().st_mtime_ns for path in (results / "planning").iterdir()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results in which the stage `quality` is done; tests only look, or copy."""
    folder = tmp_path_factory.mktemp("done")
    copy_code(folder / "code")
    rows_of(CONFIG, QUALITY, folder / "results")
    return folder / "results"


@pytest.fixture
def results(done: Path, tmp_path: Path) -> Path:
    shutil.copytree(done.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results"


@pytest.fixture
def own_testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of this test's own: whoever measures on this machine is none of its business."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_rows_are_what_solvers_answer(done: Path) -> None:
    rows = pd.read_parquet(done / "test" / "planning" / "quality" / "2x8.parquet")
    assert tuple(rows.columns) == COLUMNS
    assert dict(rows["contender"].value_counts()) == {"paper": 12, "ours": 12, "optimum": 12}
    assert set(rows["world"]) == {"simulated"}
    for row in rows[rows["contender"] == "ours"].itertuples():
        plan = solver("jellyfish")(instance(2, 8, row.seed), row.seed, 5)
        assert (row.accuracy, row.effectiveness) == (plan.accuracy, plan.effectiveness)
    by_solver = rows.pivot(index="seed", columns="contender", values="accuracy")
    bound = rows[rows["contender"] == "optimum"].set_index("seed")["accuracy_bound"]
    assert (by_solver.to_numpy() <= bound.to_numpy()[:, np.newaxis] + 1e-9).all()
    assert rows["accuracy_bound"].isna().sum() == 24
    assert rows["ended"].all()
    assert (rows[TIMES] > 0).all(axis=None)


def test_the_same_again_but_for_times(done: Path, results: Path) -> None:
    shutil.rmtree(results)
    first = pd.read_parquet(done / "test" / "planning" / "quality" / "2x8.parquet")
    again = rows_of(asked(QUALITY, instances=3), QUALITY, results).drop(columns="rejected")
    same = first[first["seed"].isin(again["seed"])].reset_index(drop=True)
    columns = again.columns.drop(TIMES)
    assert len(again) == 3 * 3
    pd.testing.assert_frame_equal(same[columns], again[columns])


def test_what_is_done_stays(results: Path) -> None:
    before = units_made(results)
    assert len(before) == 3 * 2
    rows_of(CONFIG, QUALITY, results)
    assert units_made(results) == before


def test_a_kill_loses_one_unit(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    before = units_made(results)
    lost = next(name for name in before if "-optimum-" in name)
    shutil.rmtree(results / "planning" / lost)
    with monkeypatch.context() as patch:
        patch.setattr(planning_runs, "table_of", killed)
        with pytest.raises(KeyboardInterrupt):
            rows_of(CONFIG, QUALITY, results)
    assert not (results / "planning" / lost).exists()
    rows = rows_of(CONFIG, QUALITY, results)
    assert len(rows) == 36
    after = units_made(results)
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == {lost}


def test_more_instances_and_another_solver_add_their_own(results: Path) -> None:
    before = units_made(results)
    more = [{"name": "later", "solver": "jellyfish", "steps": 9}]
    rows = rows_of(
        asked(QUALITY, instances=20, solvers=[*CONFIG["planning"]["quality"]["solvers"], *more]),
        QUALITY,
        results,
    )
    assert len(rows) == 4 * 20
    after = units_made(results)
    assert all(after[name] == when for name, when in before.items())
    assert len(after) == len(before) + 3 + 2


def test_an_edited_solver_plans_anew(results: Path) -> None:
    code = results.parent / "code"
    before, was = units_made(results), planning_code.digest_behind("paper", code)
    edited = code / "jellyfish" / "scheduling" / "mapping.py"
    edited.write_text(edited.read_text() + "# a comment\n")
    rows_of(CONFIG, QUALITY, results)
    after = units_made(results)
    anew = {name for name in after if after[name] != before[name]}
    assert anew == {name for name in after if "-paper-" in name}
    made = read_provenance(results / "planning" / min(anew)).code_digest
    assert made == planning_code.digest_behind("paper", code) != was


def test_being_told_plans_anew(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = units_made(results)
    monkeypatch.setenv(FORCED, "planning_quality")
    rows_of(CONFIG, QUALITY, results)
    assert all(before[name] != when for name, when in units_made(results).items())


@pytest.mark.parametrize("name", SOLVERS)
def test_the_code_behind_a_solver_is_found(name: str) -> None:
    files = planning_code.files_behind(name)
    assert f"jellyfish/scheduling/{name}.py" in files
    assert {"jellyfish/profile.py", "jellyfish/scheduling/problem.py"} <= set(files)
    assert all((ROOT / file).is_file() for file in files)
    for kernel, of in (("searching", "jellyfish"), ("annealing", "paper")):
        assert (f"jellyfish/scheduling/kernels/{kernel}.py" in files) == (name == of)


def test_times_are_measured_alone(own_testbed: None, tmp_path: Path) -> None:
    with held(lock_path(), "a test"):
        waits = Thread(target=run_size, args=(CONFIG, TIMINGS, SIZE, tmp_path), daemon=True)
        waits.start()
        waits.join(1.0)
        assert waits.is_alive()
        assert not (tmp_path / "planning").exists()
    waits.join(60.0)
    rows = pd.read_parquet(tmp_path / "test" / "planning" / "timings" / "2x8.parquet")
    assert set(rows["world"]) == {"measured"}
    assert rows["limit_s"].tolist() == [60.0] * 4


def test_who_never_ends_in_time_is_not_asked_for_ever(own_testbed: None, tmp_path: Path) -> None:
    slow = [PAPER | {"limit_s": 1e-9}, {"name": "proof", "solver": "optimum", "limit_s": 1e-9}]
    copy_code(tmp_path / "code")
    rows = rows_of(asked(TIMINGS, instances=12, solvers=slow), TIMINGS, tmp_path / "results")
    assert dict(rows["contender"].value_counts()) == {"paper": PATIENCE, "proof": PATIENCE}
    assert not rows["ended"].any()
