"""Where things lie: the checkout, and the files that stages hand to one another."""

from __future__ import annotations

from pathlib import Path

from experiment import grid
from experiment.grid import (
    Config,
    accuracy_key,
    clip_key,
    detections_key,
    pick,
    profile_key,
    zoo_name,
)
from jellyfish.errors import DataError
from jellyfish.files.keys import read_keys
from jellyfish.files.zoo import ZooSpec, read_zoo

ROOT = grid.ROOT


def zoo_of(config: Config, root: Path = ROOT) -> ZooSpec:
    """Return the config's zoo."""
    return read_zoo(root / str(config["zoo"]))


def asset_path(config: Config, name: str, results: Path, root: Path = ROOT) -> Path:
    """Return where the asset called `name` lies once it is downloaded.

    Raises:
        ConfigError: the list of assets cannot be read or has no such asset.
    """
    listed = root / str(config["assets"])
    assets = read_keys(listed, "assets")
    return results / "data" / str(pick({str(listed): assets}, str(listed), name)["file"])


def onnx_path(config: Config, results: Path) -> Path:
    """Return the zoo's model as CPUs serve it."""
    return results / "zoo" / zoo_name(config) / "model.onnx"


def clip_path(config: Config, name: str, results: Path) -> Path:
    """Return the clip that the config calls `name`."""
    return results / "data" / "clips" / f"{clip_key(config, name)}.avi"


def profile_folder(config: Config, device: str, results: Path) -> Path:
    """Return the folder of the zoo's profile on `device`."""
    return results / "profiles" / profile_key(config, device)


def latency_path(config: Config, device: str, results: Path) -> Path:
    """Return the raw samples of the zoo's latencies on `device`."""
    return profile_folder(config, device, results) / "latency.json"


def detections_path(config: Config, clip: str, px: int, results: Path) -> Path:
    """Return the detections of the zoo's network at `px` on `clip`."""
    return results / "detections" / detections_key(config, clip) / f"{px}.npz"


def accuracy_path(config: Config, px: int, results: Path) -> Path:
    """Return what the zoo's network at `px` is worth."""
    return results / "accuracy" / accuracy_key(config) / f"{px}.json"


def emulation_path(config: Config, device: str, results: Path) -> Path:
    """Return the latency model of an emulated device, beside its profile."""
    return profile_folder(config, device, results) / "emulation.json"


def run_folder(key: str, results: Path) -> Path:
    """Return the folder of a run."""
    return results / "runs" / key


def needed(path: Path) -> Path:
    """Return `path` if there is such a file.

    Raises:
        DataError: there is not.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; `snakemake --cores all {path}` makes it")
    return path
