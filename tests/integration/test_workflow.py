"""The workflow: on a fresh clone, what makes what anew, and all of it on the smallest grid."""

from __future__ import annotations

import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
import yaml

from experiment import grid
from tests.integration.workflow_checkout import Checkout

pytestmark = [pytest.mark.beside, pytest.mark.timeout(400)]

MEASURED = {"latency", "cell"}
GRID = grid.cells(yaml.safe_load((grid.ROOT / "config" / "config.yaml").read_text()))
CELLS = sum(cell.world == "measured" for cell in GRID)
SIMULATED = len(GRID) - CELLS
MENU = [
    *["all", "data", "fig_6", "fig_7", "fig_8", "fig_9"],
    *["fig_ablation", "fig_agreement", "fig_policies", "profiles", "report"],
    *["sim_quality", "sim_timings"],
]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone in which nothing has been run; tests only look."""
    return Checkout.copied_to(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout.copied_to(tmp_path_factory.mktemp("finished"))
    checkout.edit("config/config.yaml", "yolov3-tiny.yaml", "yolov3-tiny-smoke.yaml")  # fewer jobs
    checkout.pretend_finished()
    return checkout


@pytest.fixture
def finished(finished_once: Checkout, tmp_path: Path) -> Checkout:
    """A clone in which everything is up to date, for one test to change."""
    shutil.copytree(finished_once.root, tmp_path / "clone", symlinks=True)
    return Checkout(tmp_path / "clone")


def test_a_dry_run_on_a_fresh_clone(fresh: Checkout) -> None:
    planned = fresh.planned()
    assert planned["asset"] == 2
    assert planned["latency"] == 1
    assert planned["cell"] == CELLS
    assert planned["simulated_cell"] == SIMULATED
    assert planned["detections"] == 4 * 17
    assert planned["all"] == 1


def test_the_menu(fresh: Checkout) -> None:
    said = fresh.snakemake("--list-target-rules").stdout.splitlines()
    entries = [re.fullmatch(r"(\w+) \((.+)\)", line) for line in said]
    assert [entry[1] for entry in entries if entry] == MENU


def test_a_figure_needs_only_its_own(fresh: Checkout) -> None:
    fig_6, fig_7, fig_8 = (fresh.planned(f"fig_{n}") for n in (6, 7, 8))
    assert "cell" not in fig_6
    assert (fig_7["cell"], fig_7["simulated_cell"]) == (1, 1)
    assert "scores" not in fig_7
    assert (fig_8["cell"], fig_8["simulated_cell"]) == (CELLS, SIMULATED)
    assert not {"draw_fig_6", "draw_fig_7", "draw_fig_9", "write_report"} & set(fig_8)


def test_a_bad_config_is_one_line(fresh: Checkout, tmp_path: Path) -> None:
    """One of what tests of scripts.house look at without Snakemake."""
    (tmp_path / "bad.yaml").write_text("figures: {fig_7: {trace: lte}}\n")
    ended = fresh.snakemake("-n", "--configfile", str(tmp_path / "bad.yaml"))
    assert ended.returncode != 0
    assert "figures.fig_7 asks for" in ended.stdout
    assert len(ended.stdout.splitlines()) < 8
    assert not (fresh.root / "results").exists()


def test_comments_and_inputs_measure_nothing_anew(finished: Checkout) -> None:
    for path in ("server/engine.py", "experiment/cell.py", "scripts/calls/cell.py"):
        finished.append(path, "# a comment\n")
    for rule in MEASURED:
        finished.append(f"scripts/calls/{rule}.py", "# a comment\n")
    finished.append("jellyfish/profile.py", "# a comment\n")
    for path in (finished.root / "results").rglob("*"):
        if path.is_file() and path.suffix in (".avi", ".onnx", ".weights"):
            path.write_bytes(b"other content")
    for profile in (finished.root / "results" / "profiles").glob("*/profile.json"):
        profile.write_text("other content")
    assert not MEASURED & set(finished.planned())


def test_code_that_decides_simulates_anew_and_no_more(finished: Checkout) -> None:
    finished.append("jellyfish/scheduling/paper.py", "# a comment\n")
    planned = finished.planned()
    assert planned.pop("simulated_cell") == SIMULATED
    assert planned["caveats"] == planned["write_report"] == 1  # which tell of edited code
    after = {"scores", "score_table", "draw_fig_7", "draw_fig_8", "draw_fig_9"}
    assert set(planned) <= {*after, "caveats", "write_report", "all"}


def test_what_is_missing_is_made_whatever_else_is_new(finished: Checkout) -> None:
    """Where inputs are `ancient`, Snakemake passes over what is missing behind a job that runs."""
    folder = finished.root / "results" / "default"
    next((folder / "figures").glob("fig_9-measured-*.pdf")).unlink()
    next((folder / "cells").glob("measured-*-4-slo150-fps5.json")).unlink()
    zoo = finished.root / "config" / "zoo" / "yolov3-tiny.cfg"
    zoo.write_text(zoo.read_text() + "\n# a comment\n")
    planned = finished.planned()
    assert planned["cell"] == 1
    assert planned["draw_fig_9"] == 1
    assert planned["zoo"] == 1
    assert "latency" not in planned


@pytest.mark.parametrize(("rule", "jobs"), [("latency", 1), ("cell", CELLS)])
def test_measuring_anew_by_name(finished: Checkout, rule: str, jobs: int) -> None:
    planned = finished.planned("all", "--forcerun", rule)
    assert planned[rule] == jobs
    assert planned["draw_fig_8"] >= 1
    assert not (MEASURED - {rule}) & set(planned)


def test_a_changed_clip_reaches_its_runs_alone(finished: Checkout) -> None:
    finished.edit("config/config.yaml", "first: 0, frames: 240", "first: 0, frames: 200")
    planned = finished.planned()
    assert planned["clip"] == 1
    assert planned["cell"] == CELLS
    assert planned["detections"] == 4
    assert planned["simulated_cell"] == SIMULATED
    assert "latency" not in planned


def test_conda_measures_nothing_anew(finished: Checkout, tmp_path: Path) -> None:
    """A dry run asks conda for its version and folders alone, which this script answers."""
    conda = tmp_path / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '*info*) echo \'{"conda_prefix": "/none", "platform": "linux-64"}\' ;;\n'
        '*config*) echo \'{"get": {"channel_priority": "strict"}}\' ;;\n'
        "*) echo conda 25.1.0 ;;\nesac\n"
    )
    conda.chmod(conda.stat().st_mode | stat.S_IXUSR)
    env = {"PATH": f"{conda.parent}:/usr/bin:/bin"}
    assert not MEASURED & set(finished.planned("--sdm", "conda", env=env))


def test_a_figures_script_redraws_that_figure(finished: Checkout) -> None:
    finished.append("scripts/figures/fig_8.py", "# a comment\n")
    assert finished.planned() == {"draw_fig_8": 2, "write_report": 1, "all": 1}


def test_a_solvers_code_is_planned_with_anew(tmp_path: Path) -> None:
    checkout, target = Checkout.copied_to(tmp_path), ("sim_quality", "sim_timings")
    config = ("--configfile", "config/smoke.yaml")
    for path in [
        *["planning/quality/2x8.parquet", "planning/timings/2x8.parquet"],
        *["planning/timings/4x16.parquet"],
        *(f"figures/fig_{name}.{suffix}" for name in target for suffix in ("pdf", "png", "csv")),
    ]:
        (tmp_path / "results" / "smoke" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "smoke" / path).touch()
    touched = checkout.snakemake("--cores", "1", "--touch", "--forceall", *target, *config)
    assert touched.returncode == 0, touched.stdout
    assert checkout.planned(*target, *config) == {}
    checkout.append("jellyfish/scheduling/problem.py", "# a comment\n")
    planned = checkout.planned(*target, *config)
    assert (planned["planning_quality"], planned["planning_timings"]) == (1, 2)
    assert planned["draw_fig_sim_quality"] == planned["draw_fig_sim_timings"] == 1


def test_a_figures_target_draws_it_whichever_file_is_missing(finished: Checkout) -> None:
    figures = finished.root / "results" / "default" / "figures"
    next(figures.glob("fig_8-measured-*.png")).unlink()
    next(figures.glob("fig_9-measured-*.pdf")).unlink()
    planned = finished.planned("fig_8", "fig_9")
    assert planned == {"draw_fig_8": 1, "fig_8": 1, "draw_fig_9": 1, "fig_9": 1}


def test_a_touched_script_redraws_nothing(finished: Checkout) -> None:
    (finished.root / "scripts" / "figures" / "fig_8.py").touch()
    assert finished.planned() == {}


def test_a_larger_grid_adds_its_cells_alone(finished: Checkout) -> None:
    for old, new in (
        ("[synthetic-fast]", "[synthetic-fast, none]"),
        ("fast, none]\n    clients: [1, 2, 4, 8]", "fast, none]\n    clients: [1, 2, 3, 4, 8]"),
        ("    workers: 1\n", "    workers: 1\n    policies: [jellyfish, paper]\n"),
    ):
        finished.edit("config/config.yaml", old, new)
    planned = finished.planned()
    assert planned["cell"] == 2 * 2 * 5 * CELLS // 4 - CELLS
    assert not {"latency", "simulated_cell", "detections"} & set(planned)


def test_more_runs_of_a_cell_look_at_it_again(finished: Checkout) -> None:
    """Runs that are complete are skipped inside the job: see tests of experiment.cell."""
    text = (finished.root / "config" / "config.yaml").read_text()
    for change in ("repetitions: 2", "clips: [vtest-1, vtest-2]"):
        key = change.partition(":")[0]
        text = re.sub(rf"^    {key}: .*$", f"    {change}", text, count=1, flags=re.MULTILINE)
    (finished.root / "config" / "config.yaml").write_text(text)
    planned = finished.planned()
    assert planned["cell"] == CELLS
    assert "latency" not in planned


def test_two_scenarios_share_downloads_and_nothing_else(finished: Checkout) -> None:
    planned = finished.planned("all", "--configfile", "config/smoke.yaml")
    assert "asset" not in planned
    assert (planned["cell"], planned["simulated_cell"]) == (2, 2)
    assert planned["latency"] == 1


def test_install_happens_once_a_lock(tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path)
    lock = tmp_path / "requirements.lock"
    (pin,) = [line for line in lock.read_text().splitlines() if line.startswith("pyyaml==")]
    lock.write_text(f"{pin}\n")
    make = ("make", "install", f"PYTHON={sys.executable}")
    first = checkout.run(*make)
    assert first.returncode == 0, first.stdout
    assert "Installing 1 packages" in first.stdout
    imported = checkout.run(".venv/bin/python", "-c", "import yaml; print(yaml.__file__)")
    assert str(tmp_path) in imported.stdout
    lock.touch()
    assert "Installing" not in checkout.run(*make).stdout


def test_make_without_python_says_so(tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path)
    ended = checkout.run("make", "install", "PYTHON=python3.no")
    assert ended.returncode != 0
    assert "no python3.no here" in ended.stdout


@pytest.mark.alone
def test_every_stage_on_the_smallest_grid(assets: Path, tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path)
    shutil.copytree(assets / "weights", tmp_path / "results" / "data" / "weights")
    shutil.copytree(assets / "videos", tmp_path / "results" / "data" / "videos")
    smoke = ("--cores", "all", "all", "--configfile", "config/smoke.yaml")
    launch = (sys.executable, "-m", "experiment.launch", *smoke)
    first = checkout.run(*launch)
    assert first.returncode == 0, first.stdout[-5000:]
    folder = tmp_path / "results" / "smoke"
    for n in (6, 7, 8, 9):
        pdfs, pngs = ([*(folder / "figures").glob(f"fig_{n}-*.{s}")] for s in ("pdf", "png"))
        assert len(pdfs) == len(pngs) == 2  # one a world, or one a device
        assert all(path.read_bytes().startswith(b"%PDF") for path in pdfs)
        assert all(path.stat().st_size > 10_000 for path in pngs)
    assert (folder / "report.html").stat().st_size > 100_000
    assert "| 1 | 150 | 10 |" in (folder / "scores.md").read_text()
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 4
    second = checkout.run(*launch)
    assert "Nothing to be done" in second.stdout
    _measured_anew_when_forced(checkout)


def _measured_anew_when_forced(checkout: Checkout) -> None:
    """Of two cells, --forcerun names one by its file: only that one is run again."""
    results = checkout.root / "results"
    one, two = (
        f"results/smoke/cells/measured-cpux1-jellyfish-synthetic-{n}-slo150-fps10.json"
        for n in (1, 2)
    )
    marks = {n: run_of(results, n) / "from-before" for n in (1, 2)}
    for mark in marks.values():
        mark.touch()
    config = ("--configfile", "config/smoke.yaml")
    ended = checkout.snakemake("--cores", "all", one, two, "--forcerun", one, *config)
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert run_of(results, 1) == marks[1].parent
    assert not marks[1].exists()
    assert marks[2].exists()


def run_of(results: Path, clients: int) -> Path:
    (folder,) = results.glob(f"runs/measured-*-synthetic-{clients}-slo150-*")
    return folder


@pytest.mark.slow
def test_the_smallest_simulations_of_the_solvers(tmp_path: Path) -> None:
    checkout = Checkout.copied_to(tmp_path)
    asked = ("--cores", "all", "sim_quality", "sim_timings", "--configfile", "config/smoke.yaml")
    first = checkout.run(sys.executable, "-m", "experiment.launch", *asked)
    assert first.returncode == 0, first.stdout[-5000:]
    for name in ("sim_quality", "sim_timings"):
        figure = tmp_path / "results" / "smoke" / "figures" / f"fig_{name}.png"
        assert figure.stat().st_size > 10_000
        assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert "jellyfish" in figure.with_suffix(".csv").read_text()
    second = checkout.run(sys.executable, "-m", "experiment.launch", *asked)
    assert "Nothing to be done" in second.stdout
