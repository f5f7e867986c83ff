"""Profiles put together from samples, starts of clients, cores, provenance."""

from __future__ import annotations

import copy
import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment import cores, emulated_profile, grid, paths, profiling, provenance, size_rule
from experiment.jobs import starts
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.emulation import read_latency_model
from jellyfish.files.profiles import read_profile
from jellyfish.files.provenance import is_complete, read_provenance, write_provenance
from jellyfish.trace import Trace

Config = dict[str, Any]


@pytest.fixture
def config(root: Path) -> Config:
    value: Config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    return value


def write_parts(config: Config, results: Path, batches: int = 200) -> Path:
    """Write latencies, in two rounds, and the accuracy files of every DNN; return their folder."""
    rng = np.random.default_rng(1)
    rounds: list[dict[str, Any]] = [{"samples_ms": {}}, {"samples_ms": {}}]
    for i, px in enumerate(paths.zoo_of(config).input_px):
        for each, part in zip(rounds, (batches // 2, batches - batches // 2), strict=True):
            samples = {str(b): (5 + i * b + rng.gamma(1, 1, part)).tolist() for b in (1, 2)}
            each["samples_ms"][str(px)] = samples
        scores = {"px": px, "f1": i / 20, "frame_bytes": 1000.0 * (i + 1)}
        write_json(paths.accuracy_path(config, px, results), scores)
    path = paths.latency_path(config, "cpu", results)
    write_json(path, {"rounds": rounds})
    return path.parent


def test_a_profile_is_the_monotone_p99_and_the_strict_f1(config: Config, tmp_path: Path) -> None:
    folder = write_parts(config, tmp_path)
    profile = read_profile(profiling.assemble_profile(config, "cpu", tmp_path))
    assert (profile.dnns, profile.max_batch) == (16, 2)
    assert profile.accuracy.tolist() == [i / 20 for i in range(16)]
    assert profile.frame_bytes[3] == 4000.0
    with (folder / "profile_raw.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    raw = np.array([float(row["p99_ms"]) for row in rows]).reshape(16, 2)
    assert (profile.latency_ms >= raw - 1e-9).all()
    assert (np.diff(profile.latency_ms, axis=0) >= 0).all()
    for row in rows:
        assert float(row["p50_ms"]) < float(row["p99_low_ms"]) <= float(row["p99_ms"])
        assert float(row["p99_ms"]) <= float(row["p99_high_ms"])
        assert row["batches"] == "200"


def test_a_p99_from_too_few_batches_is_refused(config: Config, tmp_path: Path) -> None:
    few = copy.deepcopy(config)
    few["profile"]["batches"] = 99
    with pytest.raises(ConfigError, match=r"profile\.batches is 99; a p99 needs 100"):
        profiling.profile_latency(few, "cpu", tmp_path)
    write_parts(config, tmp_path, batches=99)
    with pytest.raises(DataError, match=r"latency\.json: 99 batches of 1 at 128 px; a p99"):
        profiling.assemble_profile(config, "cpu", tmp_path)


def test_a_dnn_that_was_not_measured_is_named(config: Config, tmp_path: Path) -> None:
    write_parts(config, tmp_path)
    path = paths.latency_path(config, "cpu", tmp_path)
    measured = read_json(path)
    for each in measured["rounds"]:
        del each["samples_ms"]["320"]
    write_json(path, measured)
    with pytest.raises(DataError, match=r"latency\.json: 0 batches of 1 at 320 px"):
        profiling.assemble_profile(config, "cpu", tmp_path)


def test_batch_sizes_have_no_gap(config: Config, tmp_path: Path) -> None:
    config["profile"]["batch_sizes"] = [1, 3]
    with pytest.raises(ConfigError, match=r"profile\.batch_sizes is \[1, 3\]"):
        profiling.assemble_profile(config, "cpu", tmp_path)


def test_an_interval_covers_the_p99_of_what_was_drawn_from() -> None:
    rng = np.random.default_rng(2)
    true = float(np.quantile(rng.gamma(2, 1, 1_000_000), 0.99))
    covered = 0
    for _ in range(40):
        low, high = profiling.p99_interval(rng.gamma(2, 1, 1000))
        covered += low <= true <= high
    assert covered >= 32


@pytest.mark.parametrize(
    ("workers", "threads", "there", "own", "rest"),
    [
        (1, 1, (0, 1), ((1,),), (0,)),
        (2, 1, (0, 1, 2, 3), ((2,), (3,)), (0, 1)),
        (1, 2, (0, 1, 2, 3), ((2, 3),), (0, 1)),
        (2, 1, (0, 1), ((1,), (1,)), (0,)),
        (1, 1, (5,), ((5,),), (5,)),
        (3, 2, (0, 1, 2, 3), ((1, 2), (1, 3), (2, 3)), (0,)),
    ],
)
def test_workers_get_the_last_cores_and_all_else_the_rest(
    workers: int,
    threads: int,
    there: tuple[int, ...],
    own: tuple[tuple[int, ...], ...],
    rest: tuple[int, ...],
) -> None:
    assert cores.share(workers, threads, there) == cores.Cores(workers=own, rest=rest)


def test_starts_are_seeded_and_follow_one_another(config: Config) -> None:
    trace = Trace(name="t", mbps=(20.0, 10.0, 5.0), step_s=2.0)
    cell = max(grid.cells(config), key=lambda cell: len(cell.clients))
    run = grid.runs(config, cell)[0]
    found = starts(config, run, trace)
    assert found == starts(config, run, trace)
    assert found[0].after_s == 0.0
    low, high = config["client"]["start_gap_s"]
    for before, after in pairwise(found):
        assert low <= after.after_s - before.after_s <= high
    assert {start.step for start in found} <= {0, 1, 2}
    assert [start.step for start in starts(config, run, None)] == [0] * len(cell.clients)


def test_provenance_tells_a_whole_result_from_another(tmp_path: Path, root: Path) -> None:
    made = provenance.collect(
        key="k", settings={"a": 1}, world="measured", seed=3, device="cpu", started="now"
    )
    assert not is_complete(tmp_path, made.config_hash)
    path = write_provenance(tmp_path, made)
    assert read_provenance(tmp_path) == made
    assert is_complete(tmp_path, grid.digest({"a": 1}))
    assert not is_complete(tmp_path, grid.digest({"a": 2}))
    assert {"python", "numpy"} <= set(made.versions)
    path.write_text(path.read_text()[:-20])
    assert not is_complete(tmp_path, made.config_hash)
    assert provenance.checkout(tmp_path) == ("unknown", False)
    assert provenance.checkout(root)[0] != ""


def test_the_code_digest_sees_every_edit(tmp_path: Path) -> None:
    (tmp_path / "server" / "deep").mkdir(parents=True)
    file = tmp_path / "server" / "deep" / "a.py"
    file.write_text("x = 1\n")
    (tmp_path / "server" / "notes.txt").write_text("no code")
    first = provenance.code_digest(tmp_path)
    (tmp_path / "server" / "notes.txt").write_text("still none")
    assert provenance.code_digest(tmp_path) == first
    file.write_text("x = 2\n")
    second = provenance.code_digest(tmp_path)
    file.rename(file.with_name("b.py"))
    assert len({first, second, provenance.code_digest(tmp_path)}) == 3


def test_a_synthetic_profile_is_the_stated_one(config: Config, tmp_path: Path) -> None:
    config["devices"]["gpu"] = {"kind": "emulated", "profile": "synthetic"}
    write_parts(config, tmp_path)
    profile = read_profile(emulated_profile.emulate_profile(config, "gpu", tmp_path))
    assert (profile.dnns, profile.max_batch) == (16, 12)
    assert profile.latency_ms[0, 0] == pytest.approx(11, abs=0.1)
    assert profile.latency_ms[-1, 0] == pytest.approx(35, abs=0.1)
    assert profile.accuracy.tolist() == [i / 20 for i in range(16)]
    model = read_latency_model(paths.emulation_path(config, "gpu", tmp_path))
    drawn = sorted(model.duration_ms(15, 4, 1, n) for n in range(4000))
    assert drawn[3960] == pytest.approx(profile.latency_ms[15, 3], rel=0.02)
    with (paths.profile_folder(config, "gpu", tmp_path) / "profile_raw.csv").open() as file:
        row = list(csv.DictReader(file))[15 * 12 + 3]
    assert drawn[2000] == pytest.approx(float(row["p50_ms"]), rel=0.02)
    assert sum(drawn) / 4000 == pytest.approx(float(row["mean_ms"]), rel=0.02)


def test_an_emulated_device_has_the_samples_of_a_measured_one(
    config: Config, tmp_path: Path
) -> None:
    config["devices"]["copy"] = {"kind": "emulated", "profile": "cpu"}
    write_parts(config, tmp_path)
    profile = read_profile(emulated_profile.emulate_profile(config, "copy", tmp_path))
    measured = read_profile(profiling.assemble_profile(config, "cpu", tmp_path))
    assert profile.as_dict() == measured.as_dict()
    model = read_latency_model(paths.emulation_path(config, "copy", tmp_path))
    rounds = read_json(paths.latency_path(config, "cpu", tmp_path))["rounds"]
    samples = [ms for each in rounds for ms in each["samples_ms"]["320"]["2"]]
    assert {model.duration_ms(6, 2, 1, n) for n in range(50)} <= set(samples)
    before = grid.profile_key(config, "copy")
    config["devices"]["cpu"]["threads"] = 2
    assert grid.profile_key(config, "copy") != before


def test_pairs_of_sizes_are_spread_over_the_zoo() -> None:
    sizes = tuple(range(128, 640, 32))
    assert size_rule.pairs(sizes) == [(128, 224), (224, 320), (320, 416), (416, 512), (512, 608)]
    assert size_rule.pairs((128, 320, 608)) == [(128, 608)]
    assert size_rule.pairs((128,)) == []
