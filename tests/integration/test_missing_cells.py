"""Figures of a grid that is not finished, and what a dry run says of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiment import grid
from tests.integration.workflow_checkout import Checkout
from tests.unit.figure_inputs import write_run

pytestmark = pytest.mark.beside

PART = ("--config", "allow_missing=true")
SCENARIO = """
scenario: part
grid:
  - {world: measured, device: cpu, workers: 1, traces: [synthetic], clients: [1, 2],
     slo_ms: [150], fps: [5], clips: [vtest-1], repetitions: 1,
     client: {start_gap_s: [0, 2]}}
figures: {fig_7: {trace: synthetic, clients: 2, slo_ms: 150, fps: 5}}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A clone with a scenario of two cells, of which the first is finished."""
    clone = Checkout.copied_to(tmp_path)
    (tmp_path / "part.yaml").write_text(SCENARIO)
    config = yaml.safe_load((tmp_path / "config" / "config.yaml").read_text())
    config |= yaml.safe_load(SCENARIO)
    cell = grid.cells(config)[0]
    runs = [{"key": run.key} for run in grid.runs(config, cell)]
    clone.write_index("part", cell.name, runs)
    for run in runs:
        folder = tmp_path / "results" / "runs" / run["key"]
        folder.mkdir(parents=True)
        write_run(folder / "frames.parquet", 1, 150, 5)
    return clone


def test_a_figure_of_finished_cells_gives_way_to_the_whole(checkout: Checkout) -> None:
    asked = ("fig_9", "--configfile", "part.yaml")
    drawn = checkout.snakemake("--cores", "1", *asked, *PART)
    assert drawn.returncode == 0, drawn.stdout
    folder = checkout.root / "results" / "part"
    assert (folder / "figures" / "fig_9.pdf").read_bytes().startswith(b"%PDF")
    head, *rows = (folder / "missing.csv").read_text().splitlines()
    assert head == "cell,log"
    assert [row.split(",")[0] for row in rows] == [
        "measured-cpux1-jellyfish-synthetic-2-slo150-fps5"
    ]
    assert checkout.planned(*asked, *PART) == {}
    whole = checkout.planned(*asked)
    assert whole["draw_fig_9"] == whole["missing_cells"] == 1
    assert whole["cell"] >= 1


def test_no_cell_is_begun_where_some_may_be_missing(checkout: Checkout) -> None:
    planned = checkout.planned("all", "--configfile", "part.yaml", *PART)
    assert "cell" not in planned
    assert planned["scores"] == planned["draw_fig_8"] == planned["missing_cells"] == 1
    assert "draw_fig_7" not in planned
    one = checkout.planned("results/part/figures/fig_8.pdf", "--configfile", "part.yaml", *PART)
    assert one["missing_cells"] == one["draw_fig_8"] == 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("fig_7", "fig_7 of the scenario part: none of its cells is finished"),
        ("fig_policies", "its grid has one policy; see config/policies.yaml"),
        ("fig_agreement", "no cell in both worlds; see config/agreement.yaml"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(checkout: Checkout, target: str, said: str) -> None:
    ended = checkout.snakemake("-n", target, "--configfile", "part.yaml", *PART)
    assert ended.returncode != 0
    assert said in ended.stdout


def test_a_dry_run_tells_how_long_the_rest_takes(checkout: Checkout) -> None:
    said = checkout.snakemake("-n", "fig_8", "--configfile", "part.yaml").stdout
    assert said.splitlines()[-1].startswith("Runs: 0 of 2 done; the other 2 take about 5")
