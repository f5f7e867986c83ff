"""Figures that set policies or worlds side by side, and what they do when cells are missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from jellyfish.errors import DataError
from scripts.figures import (
    fig_8,
    fig_9,
    fig_ablation,
    fig_agreement,
    fig_policies,
    pooled,
    style,
    tables,
)
from scripts.scored import COLUMNS as SCORE_COLUMNS
from tests.unit.figure_inputs import (
    write_agreement,
    write_policy_scores,
    write_profile_tables,
    write_run,
    write_scores,
)
from tests.unit.test_figures import check_drawn

POLICIES = ["paper", "aggressive", "server-independent", "fixed-size", "slo-aware", "jellyfish"]
STEPS = [("paper", "paper"), ("earliest deadline first", "step-1"), ("no padding", "jellyfish")]


def test_they_read_columns_that_are_written() -> None:
    assert {*pooled.COLUMNS, *fig_agreement.COLUMNS} <= set(SCORE_COLUMNS)


@pytest.mark.parametrize("traces", [["synthetic"], ["synthetic", "lte", "wifi"]])
def test_fig_policies_draws_a_panel_a_trace(tmp_path: Path, traces: list[str]) -> None:
    scores = write_policy_scores(tmp_path / "scores.parquet", POLICIES, traces)
    out = tmp_path / "fig_policies.pdf"
    fig_policies.draw(scores=scores, out=out, policies=POLICIES, world="measured")
    check_drawn(out, style.TEXT_IN if len(traces) > 1 else style.COLUMN_IN)


def test_policies_are_told_apart() -> None:
    looks = {tuple(fig_policies.look(i).values()) for i in range(24)}
    assert len(looks) == 24


def test_fig_ablation_draws_a_line_a_trace(tmp_path: Path) -> None:
    names = [policy for _, policy in STEPS]
    scores = write_policy_scores(tmp_path / "scores.parquet", [*names, "static"], ["lte", "wifi"])
    out = tmp_path / "fig_ablation.pdf"
    fig_ablation.draw(scores=scores, out=out, steps=STEPS, missing=["a cell"])
    check_drawn(out, style.COLUMN_IN)
    with pytest.raises(DataError, match="no run that the steps"):
        fig_ablation.draw(scores=scores, out=out, steps=[("nothing", "none")])


def test_policies_are_compared_on_the_cases_that_all_have(tmp_path: Path) -> None:
    scores = write_policy_scores(tmp_path / "scores.parquet", POLICIES, ["lte"], 1)
    rows = tables.read(scores, pooled.COLUMNS)
    assert len(pooled.comparable(rows, POLICIES)) == len(rows)
    lost = (rows["policy"] == "paper") & (rows["group"] == "8") & (rows["slo"] == "75")
    rest = pooled.comparable(rows[~lost], POLICIES)
    assert set(rest.groupby("policy").size()) == {3}
    assert len(rest) == 3 * len(POLICIES)
    without = pooled.comparable(rows[rows["policy"] != "paper"], POLICIES)
    assert set(without["policy"]) == {*POLICIES} - {"paper"}
    assert len(without) == 4 * (len(POLICIES) - 1)


def test_misses_and_detections_are_pooled() -> None:
    rows = pd.DataFrame(
        {
            "trace": "lte",
            "policy": "paper",
            "repetition": [0, 0, 1],
            "frames": [100, 300, 50],
            "ok": [80, 300, 30],
            pooled.TP: [10, 90, 7],
            pooled.FP: [5, 5, 2],
            pooled.FN: [15, 5, 4],
        }
    )
    values = pooled.by_repetition(rows).loc["lte"].loc["paper"]
    assert values[pooled.MISSES].tolist() == pytest.approx([0.05, 0.4])
    assert values[pooled.F1].tolist() == pytest.approx([200 / 230, 0.7])
    mean, (below, above) = pooled.spread(values[pooled.MISSES])
    assert (mean, below, above) == pytest.approx((0.225, 0.175, 0.175))


@pytest.mark.parametrize(("cells", "real"), [(12, 4), (3, 0), (0, 4)])
def test_fig_agreement_draws_a_column_a_kind_of_device(
    tmp_path: Path, cells: int, real: int
) -> None:
    pairs = write_agreement(tmp_path / "scores.parquet", cells, real)
    out = tmp_path / "fig_agreement.pdf"
    fig_agreement.draw(scores=tmp_path / "scores.parquet", pairs=pairs, out=out)
    check_drawn(out, style.TEXT_IN)
    table = pd.read_csv(out.with_suffix(".csv"))
    assert len(table) == cells + real
    assert table["runs_disturbed"].tolist() == [3] + [0] * (cells + real - 1)
    assert table["runs_watched"].tolist() == [3] * (cells + real)
    gap = table["p99_ms_simulated"] - table["p99_ms_measured"]
    assert table["p99_ms_gap"].tolist() == pytest.approx(gap.tolist(), abs=0.02)
    assert table["p99_ms_within"].tolist() == (table["p99_ms_gap"].abs() <= 10).tolist()


def test_cells_of_agreement_are_named_by_what_differs() -> None:
    cells = pd.DataFrame(
        {
            "group": ["4", "4_at_75"],
            "fps": ["25", "var"],
            "slo": ["100", "75"],
            "trace": ["lte", "lte"],
            "policy": ["paper", "edf"],
        }
    )
    names = [fig_agreement._cell_name(row, cells) for _, row in cells.iterrows()]
    assert names == ["4 × 25 fps, 100 ms, paper", "4_at_75, edf"]


def test_agreement_takes_medians_and_leaves_out_what_one_world_lacks(tmp_path: Path) -> None:
    pairs = write_agreement(tmp_path / "scores.parquet", 2, 0)
    rows = tables.read(tmp_path / "scores.parquet", fig_agreement.COLUMNS)
    rows = rows[rows["cell"] != pairs[1]["simulated"]]
    (row,) = fig_agreement.compared(rows, pairs).to_dict("records")
    mine = rows[rows["cell"] == pairs[0]["measured"]]
    assert row["miss_pct_measured"] == pytest.approx(100 * mine["miss_rate"].median())
    assert row["runs_measured"] == row["runs_simulated"] == 3
    none = {**pairs[0], "measured": "no such cell"}
    with pytest.raises(DataError, match="no cell in both worlds"):
        fig_agreement.draw(
            scores=tmp_path / "scores.parquet", pairs=[none], out=tmp_path / "fig.pdf"
        )


def test_figures_of_an_unfinished_grid_name_what_is_missing(tmp_path: Path) -> None:
    assert tables.lacking([]) == []
    said = tables.lacking([f"cell-{i}" for i in range(7)])
    assert said[0] == "INCOMPLETE, cells missing: 7"
    assert said[-1] == "and 3 more: missing.csv"
    assert tables.lacking(["cell-1"]) == ["INCOMPLETE, cells missing: 1", "cell-1"]


def test_an_unfinished_grid_is_drawn_with_a_longer_text(tmp_path: Path) -> None:
    profile, _ = write_profile_tables(tmp_path)
    scores = write_scores(tmp_path / "scores.parquet")
    missing = ["measured-cpux1-jellyfish-synthetic-8-slo100-fps15"]
    frames = [write_run(tmp_path / "frames.parquet", 2)]
    for name, kwargs in (("whole", {}), ("part", {"missing": missing})):
        fig_8.draw(scores=scores, profile=profile, out=tmp_path / f"{name}_8.pdf", **kwargs)
        fig_9.draw(frames=frames, out=tmp_path / f"{name}_9.pdf", **kwargs)
    for figure in ("8", "9"):
        whole, part = (tmp_path / f"{name}_{figure}.png" for name in ("whole", "part"))
        assert whole.read_bytes() != part.read_bytes()
