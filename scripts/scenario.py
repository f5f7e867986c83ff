"""A scenario: the config, checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config

from experiment import grid, planning_study
from experiment.checked import check
from experiment.host_file import read_hosts
from jellyfish.errors import ConfigError
from jellyfish.files.keys import read_keys
from jellyfish.files.zoo import ZooSpec, read_zoo
from jellyfish.policy import policy
from scripts.data import Asset, read_assets

SCHEMA = Path("workflow/schemas/config.schema.yaml")
DEFAULT = Path("config/config.yaml")


@dataclass(frozen=True)
class Scenario:
    """What a config asks for: its assets, DNNs and cells, by name where they have one."""

    assets: Mapping[str, Asset]
    zoo: ZooSpec
    cells: Mapping[str, grid.Cell]


def read(path: Path | None, root: Path) -> dict[str, Any]:
    """Return the default config of the checkout `root`, with the one at `path` laid over it.

    Raises:
        ConfigError: a file cannot be read, or holds something else than keys.
    """
    config = read_keys(root / DEFAULT, "a config")
    update_config(config, read_keys(path, "a config") if path else {})
    return config


def load(config: Mapping[str, Any], root: Path) -> Scenario:
    """Return the scenario of `config`, whose paths are relative to `root`.

    Raises:
        ConfigError: a key is unknown, missing or has a value that cannot be used, or something
            is named that there is not; the text names the key, or the file and the key.
    """
    check(config, yaml.safe_load((root / SCHEMA).read_text()), "config")
    if config["hosts"] is not None:
        read_hosts(root / config["hosts"])
    assets, zoo = read_assets(root / config["assets"]), read_zoo(root / config["zoo"])
    labelled = config["scoring"]["labelled"]
    _all_in(assets, "assets", [zoo.weights, *([labelled] if labelled else [])])
    _all_in(assets, "assets", [clip["asset"] for clip in config["clips"].values()])
    _all_in(dict.fromkeys(zoo.labels), "labels", config["scoring"]["classes"])
    _all_in(config["clips"], "clips", [config["profile"]["clip"]])
    sizes = config["profile"]["batch_sizes"]
    if sizes != list(range(1, len(sizes) + 1)):
        raise ConfigError(f"config: profile.batch_sizes must be 1, 2, ... without gaps: {sizes}")
    cells = grid.cells(config)
    for device in config["devices"]:
        grid.emulated(config, device)
    for cell in cells:
        policy(cell.policy)
        if cell.world == "simulated" and not grid.is_emulated(config, cell.device):
            raise ConfigError(
                f"config: grid: device {cell.device!r} of a simulated block is not emulated"
            )
    for stage in planning_study.WORLD:
        planning_study.study(config, stage)
    return Scenario(assets, zoo, {cell.name: cell for cell in cells})


def _all_in(known: Mapping[str, Any], section: str, names: Iterable[str]) -> None:
    for name in names:
        grid.pick({section: known}, section, name)
