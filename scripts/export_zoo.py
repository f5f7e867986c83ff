"""The zoo's network with its weights as an ONNX file, which is what CPUs serve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jellyfish.errors import ConfigError
from jellyfish.files.zoo import ZooSpec, read_zoo
from scripts.data import read_assets
from server.zoo.onnx_export import export


def main(config: Mapping[str, Any], root: Path, results: Path) -> Path:
    """Export the config's zoo to results/zoo/NAME/model.onnx; return that path.

    Raises:
        ConfigError: the zoo, its network or the name of its weights cannot be used.
        DataError: the weights are missing, cut short or another network's.
    """
    zoo = read_zoo(root / config["zoo"])
    out = results / "zoo" / zoo.name / "model.onnx"
    export(zoo.cfg, _weights(zoo, root / config["assets"], results), out)
    return out


def _weights(zoo: ZooSpec, assets: Path, results: Path) -> Path:
    known = read_assets(assets)
    if zoo.weights not in known:
        raise ConfigError(
            f"zoo {zoo.name}: no asset {zoo.weights!r} in {assets}; there are: "
            f"{', '.join(sorted(known))}"
        )
    return results / "data" / known[zoo.weights].file
