"""Figures are drawn from the tables that the workflow writes; wrong tables are refused by name."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import yaml
from docutils.core import publish_parts
from matplotlib import image

from experiment.profiling import RAW_COLUMNS
from jellyfish.errors import DataError
from jellyfish.files.tables import FRAMES
from jellyfish.records import Outcome
from scripts.figures import fig_6, fig_7, fig_8, fig_9, overview, style, tables
from scripts.scored import COLUMNS as SCORE_COLUMNS
from tests.unit.figure_inputs import CELL, write_profile_tables, write_run, write_scores

ROOT = Path(__file__).parents[2]


def check_drawn(out: Path, width_in: float) -> None:
    """Both formats exist; the picture is as wide as asked, and mostly, not wholly, white."""
    assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    pixels = image.imread(out.with_suffix(".png"))
    assert pixels.shape[1] == pytest.approx(width_in * 300, abs=2)
    ink = float((pixels[..., :3].min(axis=2) < 0.9).mean())
    assert 0.01 < ink < 0.5
    assert float(pixels[:, [0, -1], :3].min()) > 0.9, "something is cut off at an edge"


@pytest.mark.parametrize(("batches", "samples"), [(8, 2000), (1, 500)])
def test_fig_6_draws_profiles_of_any_number_of_batch_sizes(
    tmp_path: Path, batches: int, samples: int
) -> None:
    profile, raw = write_profile_tables(tmp_path, batches, samples)
    out = tmp_path / "figures" / "fig_6.pdf"
    fig_6.draw(profile=profile, raw=raw, out=out, latencies="cpu: onnxruntime")
    check_drawn(out, style.TEXT_IN)


def test_fig_6_names_the_file_and_what_it_lacks(tmp_path: Path) -> None:
    profile, raw = write_profile_tables(tmp_path)
    pd.read_csv(raw).drop(columns="p99_ms").to_csv(raw, index=False)
    with pytest.raises(DataError, match=r"profile_raw\.csv.*p99_ms"):
        fig_6.draw(profile=profile, raw=raw, out=tmp_path / "fig.pdf", latencies="cpu")
    raw.unlink()
    with pytest.raises(DataError, match=r"profile_raw\.csv is missing"):
        fig_6.draw(profile=profile, raw=raw, out=tmp_path / "fig.pdf", latencies="cpu")
    assert not list(tmp_path.glob("fig.*"))


def test_labels_at_the_ends_of_lines_stand_apart() -> None:
    ends = [float(v) for v in np.geomspace(10, 200, 16)]
    chosen = fig_6._apart(ends, 1.25)
    assert {0, 15} <= set(chosen)
    values = sorted(ends[m] for m in chosen)
    assert all(b / a > 1.25 for a, b in pairwise(values))
    assert fig_6._apart([3.0], 1.25) == [0]


@pytest.mark.parametrize("clients", [1, 4])
def test_fig_7_draws_the_first_two_clients(tmp_path: Path, clients: int) -> None:
    profile, _ = write_profile_tables(tmp_path)
    frames = write_run(tmp_path / "frames.parquet", clients)
    fig_7.draw(frames=frames, profile=profile, out=tmp_path / "fig_7.pdf")
    check_drawn(tmp_path / "fig_7.pdf", style.TEXT_IN)


def test_fig_7_draws_a_run_without_trace_and_without_one_answer(tmp_path: Path) -> None:
    profile, _ = write_profile_tables(tmp_path)
    frames = write_run(tmp_path / "frames.parquet")
    table = pd.read_parquet(frames)
    table["bandwidth_true_kbps"] = float("nan")
    table["bandwidth_est_kbps"] = float("nan")
    table["dnn_px"] = -1
    table["outcome"] = [list(Outcome)[1 + k % 5] for k in range(len(table))]
    table.to_parquet(frames)
    fig_7.draw(frames=frames, profile=profile, out=tmp_path / "fig_7.pdf")
    check_drawn(tmp_path / "fig_7.pdf", style.TEXT_IN)


@pytest.mark.parametrize(("clips", "mixed"), [(1, False), (3, True)])
def test_fig_8_draws_one_run_a_cell_or_their_spread(
    tmp_path: Path, clips: int, mixed: bool
) -> None:
    profile, _ = write_profile_tables(tmp_path)
    scores = write_scores(tmp_path / "scores.parquet", clips, mixed)
    fig_8.draw(scores=scores, profile=profile, out=tmp_path / "fig_8.pdf", world="measured")
    check_drawn(tmp_path / "fig_8.pdf", style.TEXT_IN)


def test_fig_8_of_one_slo_has_room_for_its_legend(tmp_path: Path) -> None:
    profile, _ = write_profile_tables(tmp_path)
    path = write_scores(tmp_path / "scores.parquet", 1, False)
    scores = pd.read_parquet(path)
    scores[scores["slo"] == scores["slo"].iloc[0]].to_parquet(path)
    fig_8.draw(scores=path, profile=profile, out=tmp_path / "fig_8.pdf", world="measured")
    check_drawn(tmp_path / "fig_8.pdf", style.COLUMN_IN)


def test_figures_read_columns_that_are_written() -> None:
    assert set(fig_8.COLUMNS) <= set(SCORE_COLUMNS)
    assert set(tables.SETTING) <= set(SCORE_COLUMNS)
    assert set(fig_7.COLUMNS) <= set(FRAMES.names)
    assert set(fig_9.COLUMNS) <= {*FRAMES.names, "group"}
    assert set(fig_6.RAW) <= set(RAW_COLUMNS)


def test_fig_9_draws_the_grid_and_leaves_mixed_cells_out(tmp_path: Path) -> None:
    frames = [
        write_run(tmp_path / f"{n}-{slo}.parquet", n, slo) for n in (1, 2) for slo in (75, 100)
    ]
    frames.append(write_run(tmp_path / "mixed.parquet", 3, group="3_var_var"))
    fig_9.draw(frames=frames, out=tmp_path / "fig_9.pdf", world="measured", workers=1)
    check_drawn(tmp_path / "fig_9.pdf", style.TEXT_IN)
    fig_9.draw(frames=frames[:1], out=tmp_path / "one.pdf")
    check_drawn(tmp_path / "one.pdf", style.COLUMN_IN)
    with pytest.raises(DataError, match="mixed cells only"):
        fig_9.draw(frames=frames[-1:], out=tmp_path / "none.pdf")


def test_a_missed_frame_leaves_a_gap_in_the_distribution() -> None:
    rows = pd.DataFrame(
        {
            "outcome": [Outcome.OK, Outcome.DROPPED, Outcome.OK, Outcome.LATE],
            "e2e_ms": [30.0, 5.0, 20.0, 120.0],
        }
    )
    latencies, share = fig_9.distribution(rows)
    assert latencies.tolist() == [20, 30, 120]
    assert share.tolist() == [0.25, 0.5, 0.75]


def test_no_frame_answered_is_an_empty_line(tmp_path: Path) -> None:
    frames = write_run(tmp_path / "frames.parquet", 1)
    table = pd.read_parquet(frames)
    table["outcome"], table["e2e_ms"] = Outcome.LOST.value, float("nan")
    table.to_parquet(frames)
    fig_9.draw(frames=[frames], out=tmp_path / "fig_9.pdf")
    check_drawn(tmp_path / "fig_9.pdf", style.COLUMN_IN)


def test_worlds_and_policies_are_never_mixed_in_one_figure(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one.parquet", 1)
    two = write_run(tmp_path / "two.parquet", 1, policy="paper")
    with pytest.raises(DataError, match=r"more than one policy \(jellyfish, paper\)"):
        fig_9.draw(frames=[one, two], out=tmp_path / "fig.pdf")
    rows = tables.one_setting(tables.read([one, two], fig_9.COLUMNS), "fig_9", policy="paper")
    assert set(rows["policy"]) == {"paper"}
    with pytest.raises(DataError, match="no row of its tables has trace wifi"):
        fig_9.draw(frames=[one], out=tmp_path / "fig.pdf", trace="wifi")
    with pytest.raises(DataError, match="lack the column host"):
        fig_9.draw(frames=[one], out=tmp_path / "fig.pdf", host="a")


def test_small_print_names_world_and_latencies() -> None:
    note = tables.note(pd.DataFrame([{**CELL, "workers": 2}]), "more")
    assert note.startswith("measured, latencies of cpu: onnxruntime")
    assert "2 workers" in note
    assert note.endswith("trace synthetic · more")


def test_missing_tables_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table was given"):
        tables.read([])
    with pytest.raises(DataError, match=r"nowhere\.parquet is missing"):
        tables.read(tmp_path / "nowhere.parquet")
    with pytest.raises(DataError, match=r"frames\.parquet lacks the columns colour"):
        tables.read(write_run(tmp_path / "frames.parquet", 1), ["frame", "colour"])


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "scores.parquet")
    profile, _ = write_profile_tables(tmp_path)
    for name in ("a.pdf", "b.pdf"):
        fig_8.draw(scores=scores, profile=profile, out=tmp_path / name)
    for suffix in (".pdf", ".png"):
        drawn = [(tmp_path / name).with_suffix(suffix).read_bytes() for name in ("a.pdf", "b.pdf")]
        assert drawn[0] == drawn[1]


def test_lines_differ_in_colour_marker_and_dashes() -> None:
    lines = [style.line(i) for i in range(7)]
    for part in ("color", "marker", "dashes"):
        assert len({str(getattr(line, part)) for line in lines}) == 7


def test_sizes_get_lighter_in_grey_print_too() -> None:
    grey = [float(np.dot(rgba[:3], [0.299, 0.587, 0.114])) for rgba in style.size_colors(16)]
    assert grey == sorted(grey)
    assert len(set(grey)) == 16


def test_the_overview_in_docs_is_what_the_script_draws(tmp_path: Path) -> None:
    svg, png = overview.draw(out=tmp_path / "overview.svg")
    assert svg.read_text() == (ROOT / "docs" / "overview.svg").read_text()
    assert image.imread(png).shape == image.imread(ROOT / "docs" / "overview.png").shape


CAPTIONS = sorted((ROOT / "workflow" / "report").glob("*.rst"))


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("config", "missing"), [("config.yaml", []), ("config.yaml", ["a-cell"])])
def test_captions_print_the_config_and_are_sound_markup(
    path: Path, config: str, missing: list[str]
) -> None:
    values: dict[str, Any] = yaml.safe_load((ROOT / "config" / config).read_text())
    job = SimpleNamespace(
        config=values,
        input={"size_rule": ["size_rule.csv"]},
        params={
            **values["planning"]["quality"],
            "interval_s": values["server"]["plan_interval_s"],
            "latencies": "cpu: onnxruntime",
            "emulated": False,
            "setting": CELL,
            "wanted": values["figures"]["fig_7"],
            "policies": ["paper", "jellyfish"],
            "steps": [("paper", "paper"), ("a change", "jellyfish")],
            "pairs": [],
            "missing": missing,
        },
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(path.read_text()).render(snakemake=job)
    checks = {"halt_level": 2, "report_level": 2}  # a warning is an error
    html = publish_parts(text, writer="html", settings_overrides=checks)["html_body"]
    assert "{{" not in html
    names_missing = 'params["missing"]' in path.read_text()
    assert ("a-cell" in html) == (names_missing and bool(missing))
    if path.stem == "workflow":
        assert values["scenario"] in html
        assert all(name in html for name in values["clips"])
        assert html.count("<li>") >= len(values["grid"]) + len(values["clips"])
