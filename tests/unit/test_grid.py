"""The grid: which cells and runs a config asks for, and what they are called."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment import grid
from jellyfish.errors import ConfigError

Config = dict[str, Any]


@pytest.fixture
def config(root: Path) -> Config:
    value: Config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    block = {
        "world": "measured",
        "device": "cpu",
        "workers": 1,
        "traces": ["none", "synthetic"],
        "clients": [1, 4],
        "slo_ms": [100, 150],
        "fps": [10],
        "clips": ["vtest-1", "vtest-2"],
        "repetitions": 2,
        "mixed": ["4_var_var"],
    }
    pairs = [[75, 15], [100, 15], [150, 25], [75, 25]]
    return value | {"grid": [block], "mixed": {"4_var_var": pairs}}


def keys(config: Config) -> set[str]:
    return {run.key for cell in grid.cells(config) for run in grid.runs(config, cell)}


def test_a_block_is_a_full_product_with_its_mixed_cells(config: Config) -> None:
    cells = grid.cells(config)
    assert len(cells) == 2 * (2 * 2 * 1 + 1)
    assert len({cell.name for cell in cells}) == len(cells)
    assert len(keys(config)) == len(cells) * 2 * 2
    mixed = next(cell for cell in cells if cell.group == "4_var_var")
    assert (mixed.slo, mixed.fps, len(mixed.clients)) == ("var", "var", 4)
    assert mixed.clients[2] == grid.ClientSpec(slo_ms=150.0, fps=25.0)
    assert mixed.name == "measured-cpux1-jellyfish-none-4_var_var-slovar-fpsvar"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("traces", ["none", "synthetic", "more"]),
        ("clips", ["vtest-1", "vtest-2", "vtest-3"]),
        ("repetitions", 3),
        ("clients", [1, 2, 4]),
        ("policies", ["jellyfish", "paper"]),
    ],
)
def test_a_larger_grid_keeps_the_runs_there_were(config: Config, key: str, value: Any) -> None:
    larger = copy.deepcopy(config)
    larger["traces"]["more"] = {"kind": "steps", "mbps": [5], "step_s": 1}
    larger["grid"][0][key] = value
    assert keys(config) < keys(larger)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("network", "delay_ms", 5),
        ("client", "stream_s", 30),
        ("server", "cached_dnns", 3),
        ("profile", "batches", 500),
        ("scoring", None, None),
    ],
)
def test_a_run_is_named_by_what_its_result_depends_on(
    config: Config, section: str, key: str | None, value: Any
) -> None:
    changed = copy.deepcopy(config)
    if key is None:  # how it is scored does not change what was measured
        changed[section]["iou"] = 0.6
        assert keys(changed) == keys(config)
    else:
        changed[section][key] = value
        assert keys(changed).isdisjoint(keys(config))


def test_policies_meet_the_same_seeds_and_repetitions_others(config: Config) -> None:
    config["grid"][0]["policies"] = ["jellyfish", "paper"]
    seeds: dict[str, list[int]] = {"jellyfish": [], "paper": []}
    for cell in grid.cells(config):
        seeds[cell.policy] += [run.seed for run in grid.runs(config, cell)]
    assert seeds["jellyfish"] == seeds["paper"]
    assert len(set(seeds["paper"])) == len(seeds["paper"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("traces", ["nowhere"], "no 'nowhere' under traces; there are: .*none, synthetic"),
        ("clips", ["film"], "no 'film' under clips"),
        ("device", "tpu", "no 'tpu' under devices; there are: cpu"),
        ("mixed", ["5_var"], "no '5_var' under mixed; there are: 4_var_var"),
    ],
)
def test_an_unknown_name_is_named(config: Config, key: str, value: Any, message: str) -> None:
    config["grid"][0][key] = value
    with pytest.raises(ConfigError, match=message):
        grid.cells(config)


def test_two_blocks_that_differ_over_one_cell_are_refused(config: Config) -> None:
    same, other = copy.deepcopy(config["grid"][0]), copy.deepcopy(config["grid"][0])
    config["grid"].append(same)
    assert len(grid.cells(config)) == 10
    other["repetitions"] = 5
    config["grid"].append(other)
    with pytest.raises(ConfigError, match="two blocks of grid ask for measured-cpux1"):
        grid.cells(config)


def test_names_do_not_depend_on_the_order_of_keys(config: Config) -> None:
    turned = dict(reversed(config.items()))
    turned["profile"] = dict(reversed(config["profile"].items()))
    assert keys(turned) == keys(config)
    assert grid.profile_key(turned, "cpu") == grid.profile_key(config, "cpu")
    assert grid.detections_key(turned, "vtest-1") == grid.detections_key(config, "vtest-1")


def test_one_name_for_two_cuts_is_two_files(config: Config) -> None:
    other = copy.deepcopy(config)
    other["clips"]["vtest-1"]["first"] += 1
    assert grid.clip_key(other, "vtest-1") != grid.clip_key(config, "vtest-1")
    assert grid.clip_key(other, "vtest-2") == grid.clip_key(config, "vtest-2")


@pytest.mark.parametrize(
    ("file", "old", "new", "differs"),
    [
        ("zoo.yaml", "nms_iou: 0.4", "nms_iou: 0.5", True),
        ("zoo.yaml", "nms_iou: 0.4", "nms_iou: 0.4 # a comment", False),
        ("net.cfg", "filters=16", "filters=32", True),
        ("net.cfg", "filters=16", "filters=16\n# a comment", False),
    ],
)
def test_an_edited_zoo_is_another_zoo(
    tmp_path: Path, file: str, old: str, new: str, differs: bool
) -> None:
    text = "cfg: net.cfg\nweights: w\nlabels: [a]\ninput_px: [32]\nreference_px: 64\nnms_iou: 0.4\n"
    (tmp_path / "zoo.yaml").write_text(text)
    (tmp_path / "net.cfg").write_text("[convolutional]\nfilters=16\n")
    before = grid.zoo_settings("zoo.yaml", tmp_path)
    edited = (tmp_path / file).read_text().replace(old, new)
    (tmp_path / file).write_text(edited)
    grid.zoo_settings.cache_clear()
    assert (grid.zoo_settings("zoo.yaml", tmp_path) != before) == differs


def simulated(config: Config, device: str, **spec: Any) -> Config:
    """Return a config whose one block is simulated on an emulated device."""
    changed = copy.deepcopy(config)
    changed["devices"][device] = {"kind": "emulated", **spec}
    changed["grid"][0] |= {"world": "simulated", "device": device}
    return changed


def test_a_block_may_have_client_settings_of_its_own(config: Config) -> None:
    before, limit = keys(config), config["client"]["in_flight_limit"]
    config["grid"][0]["client"] = {"stream_s": 7, "start_gap_s": [0, 1]}
    (cell, *_) = grid.cells(config)
    assert grid.of_cell(config, cell)["client"]["stream_s"] == 7
    assert grid.of_cell(config, cell)["client"]["in_flight_limit"] == limit
    assert keys(config).isdisjoint(before)
    config["client"] |= {"stream_s": 7, "start_gap_s": [0, 1]}
    same = keys(config)
    del config["grid"][0]["client"]
    assert keys(config) == same


def test_both_worlds_meet_the_same_seeds(config: Config) -> None:
    measured = [run.seed for cell in grid.cells(config) for run in grid.runs(config, cell)]
    copied = simulated(config, "copy", profile="cpu")
    runs = [run for cell in grid.cells(copied) for run in grid.runs(copied, cell)]
    assert [run.seed for run in runs] == measured
    assert {run.key for run in runs}.isdisjoint(keys(config))


def test_only_simulated_runs_depend_on_what_simulation_charges(config: Config) -> None:
    changed = copy.deepcopy(config)
    changed["simulation"]["scheduler_ms"] = 9
    assert keys(changed) == keys(config)
    before = simulated(config, "gpu", profile="synthetic")
    after = simulated(changed, "gpu", profile="synthetic")
    assert keys(before).isdisjoint(keys(after))


def test_latencies_are_called_what_they_are(config: Config) -> None:
    config["devices"]["gpu"] = {"kind": "emulated", "profile": "synthetic"}
    config["devices"]["copy"] = {"kind": "emulated", "profile": "cpu"}
    found = [grid.latencies(config, device) for device in ("cpu", "gpu", "copy")]
    assert found == ["cpu: onnxruntime", "emulated synthetic", "emulated cpu"]
    assert [grid.emulated(config, device) for device in ("cpu", "gpu", "copy")] == [
        None,
        None,
        "cpu",
    ]
    config["devices"]["copy"]["profile"] = "gpu"
    with pytest.raises(ConfigError, match=r"devices\.copy: profile 'gpu' is emulated itself"):
        grid.emulated(config, "copy")
