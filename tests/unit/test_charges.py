"""What virtual time charges: values, distributions, and those recorded from measured runs."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from experiment import grid, record_charges
from experiment.charges import NAMES, charge_settings, charges_of
from experiment.disturbance import Disturbance, Told, record
from experiment.link import FRAME_HEADER_BYTES
from jellyfish.charges import Charge, charge, derived_seed
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.atomic import write_json
from jellyfish.files.tables import PlanRow, frames_table, write_plans
from jellyfish.records import FrameRow, Outcome
from jellyfish.trace import constant

SETTINGS = {
    "downlink_mbps": 100,
    "queue_limit_bytes": None,
    "scheduler_ms": 1.0,
    "server_ms": 0,
    "hand_over_ms": [0.2, 0.4, 2],
    "device_ms": {"recorded": "charges.yaml"},
    "transport_ms": 0,
    "answer_ms": 0,
}


@given(
    values=st.lists(st.floats(0, 1e4), min_size=1, max_size=8).map(sorted),
    share=st.floats(0, 1),
)
def test_a_distribution_lies_within_its_quantiles(values: list[float], share: float) -> None:
    made = charge(values)
    assert values[0] * (1 - 1e-12) <= made.at(share) <= values[-1] * (1 + 1e-12)
    assert (made.at(0), made.at(1)) == pytest.approx((values[0], values[-1]))


def test_draws_have_the_distribution_and_belong_to_a_seed() -> None:
    made = charge([0, 1, 9])
    draw, again, other = made.draws(1), made.draws(1), made.draws(2)
    drawn = [draw() for _ in range(4000)]
    assert drawn == [again() for _ in range(4000)]
    assert drawn != [other() for _ in range(4000)]
    assert mean(drawn) == pytest.approx(0.5 * 0.5 + 0.5 * 5, rel=0.05)
    assert sum(ms < 1 for ms in drawn) == pytest.approx(2000, abs=150)
    always = charge(3).draws(1)
    assert {always() for _ in range(9)} == {3.0}


def test_seeds_differ_by_name_and_run() -> None:
    seeds = {derived_seed(seed, name) for seed in range(50) for name in ("a", "b", "link 1")}
    assert len(seeds) == 150


def test_quantiles_may_have_their_shares() -> None:
    made = charge([[0, 1], [0.9, 2], [0.99, 20]])
    assert [made.at(share) for share in (0, 0.45, 0.9, 0.945, 0.99, 1)] == pytest.approx(
        [1, 1.5, 2, 11, 20, 20]
    )
    assert made == charge(made) != charge([1, 2, 20])


PAIRS = [[[0.1, 1], [1, 2]], [[0, 1], [0, 2]], [[0, 1], [1.1, 2]], [[0, 1], [1]], [[0, 2], [1, 1]]]


@pytest.mark.parametrize("value", [[], [2, 1], -1, [0, float("nan")], "1 ms", None, ["x"], *PAIRS])
def test_nonsense_is_no_charge(value: Any) -> None:
    with pytest.raises(ConfigError, match="charge"):
        charge(value)


def test_the_config_gives_values_quantiles_and_files(tmp_path: Path) -> None:
    (tmp_path / "charges.yaml").write_text("cpu: {device_ms: [1, 2.5]}\n")
    settings = charge_settings(SETTINGS, "cpu", tmp_path)
    assert settings == {**SETTINGS, "device_ms": [1, 2.5]}
    made = charges_of(settings)
    assert set(made) == set(NAMES)
    assert (made["device_ms"], made["scheduler_ms"]) == (Charge((1.0, 2.5)), Charge((1.0,)))


def test_what_a_file_of_charges_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "charges.yaml"
    with pytest.raises(ConfigError, match=str(path)):
        charge_settings(SETTINGS, "cpu", tmp_path)
    for text in ("cpu: {device_ms: [1, 2]}", "gpu: {answer_ms: 1}", "gpu: 3"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"simulation\.device_ms: .*charges\.yaml.*'gpu'"):
            charge_settings(SETTINGS, "gpu", tmp_path)
    path.write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"charges\.yaml holds no keys of devices"):
        charge_settings(SETTINGS, "gpu", tmp_path)
    path.write_text("gpu: {device_ms: [2, 1]}")
    with pytest.raises(ConfigError, match=r"simulation\.device_ms"):
        charges_of(charge_settings(SETTINGS, "gpu", tmp_path))


def test_recorded_charges_are_part_of_a_run_s_settings(root: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    path = tmp_path / "charges.yaml"
    config["simulation"] |= {"device_ms": {"recorded": str(path)}}
    path.write_text("gpu: {device_ms: [1, 2]}")
    before = grid.simulation(config, "gpu")
    path.write_text("gpu: {device_ms: [1, 2, 3]}")
    assert (before["device_ms"], grid.simulation(config, "gpu")["device_ms"]) == ([1, 2], [1, 2, 3])


def write_run(folder: Path, world: str = "measured") -> Path:
    """Write a run whose frames, 0.1 s apart, spent known times; return its directory."""
    folder.mkdir(parents=True)
    trace, rows = constant("uplink", 8), []
    for k in range(200):
        row = FrameRow(0, k, k, 10, 100, k / 10)
        row.sent_s, row.bytes_up, row.batch = row.capture_s + 0.003, 10_000, 1 + (k % 4 == 3)
        link_s = trace.departure(0, 8 * (row.bytes_up + FRAME_HEADER_BYTES))
        row.acked_s = row.sent_s + link_s + 0.002
        row.server_ms, row.dispatch_ms = 20.0, 0.7 + 0.1 * (k % 2)
        row.received_s = row.acked_s + (0.0205 if row.batch == 1 else 0.03)  # waits for another
        row.outcome = Outcome.OK
        rows.append(row)
    table = frames_table(rows)
    for name, value in {"world": world, "device": "cpu"}.items():
        table = table.append_column(name, pa.array([value] * len(rows)))
    pq.write_table(table, folder / "frames.parquet")
    plan = PlanRow(0.0, "paper", [128], [1], [0], [0], [1.0], 1.0, 0.5, 4.0)
    write_plans(folder / "plans.parquet", [plan])
    uplink = {"mbps": list(trace.mbps), "step_s": trace.step_s}
    write_json(folder / "jobs" / "client-0.job.json", {"trace": uplink, "delay_ms": 0})
    write_json(folder / "client-0.json", {"relay": {"started_s": -1.0}})
    return folder


def test_charges_are_recorded_from_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_charges.main([str(write_run(tmp_path / "run"))])
    (tmp_path / "charges.yaml").write_text(capsys.readouterr().out)
    recorded = yaml.safe_load((tmp_path / "charges.yaml").read_text())["cpu"]
    expected = {"device_ms": 3, "transport_ms": 2, "answer_ms": 0.5, "scheduler_ms": 4}
    for name, ms in expected.items():
        assert [found for _, found in recorded[name]] == [ms] * len(record_charges.SHARES)
    hand_over = charge(recorded["hand_over_ms"])
    assert [hand_over.at(share) for share in (0, 0.2, 0.8, 1)] == [0.7, 0.7, 0.8, 0.8]
    settings = {**SETTINGS, **{name: {"recorded": "charges.yaml"} for name in recorded}}
    assert charges_of(charge_settings(settings, "cpu", tmp_path))["device_ms"].at(0.5) == 3


def test_charges_are_not_recorded_from_a_disturbed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calm, busy = write_run(tmp_path / "calm"), write_run(tmp_path / "busy")
    record(calm, Told(Disturbance(0.01, 0, 0.1)))
    record(busy, Told(Disturbance(0.2, 0, 0.4), disturbed=True))
    alone = record_charges.record([calm])
    write_plans(busy / "plans.parquet", [PlanRow(0.0, "x", [], [], [], [], [], 1.0, 0.5, 99.0)])
    assert record_charges.record([calm, busy]) == alone
    assert "busy: left out, since it was disturbed (20.0% of" in capsys.readouterr().err
    with pytest.raises(DataError, match="every run was disturbed"):
        record_charges.record([busy])


def test_charges_are_not_recorded_from_a_simulated_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a simulated run"):
        record_charges.record([write_run(tmp_path / "run", world="simulated")])
