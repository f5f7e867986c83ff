"""The latency model of an emulated device on disk: emulation.json beside its profile."""

from __future__ import annotations

from pathlib import Path

from jellyfish.emulation import LatencyModel
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json


def read_latency_model(path: Path) -> LatencyModel:
    """Return the model in `path`.

    Raises:
        DataError: the file is missing or holds no model.
    """
    value = read_json(path)
    try:
        return LatencyModel.from_dict(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
