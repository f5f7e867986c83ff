"""A zoo on disk: one YAML file that names a network, its weights, labels and input sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from jellyfish.errors import ConfigError
from jellyfish.files.keys import read_keys


@dataclass(frozen=True, kw_only=True)
class ZooSpec:
    """DNNs that do one job at several input sizes: one fully convolutional network.

    Args:
        name: stem of the zoo's file.
        cfg: the network in Darknet's text format.
        weights: name of the weights in the list of assets.
        labels: class names, in the order of the network's outputs.
        input_px: sides of the square inputs, ascending; DNN m takes input_px[m].
        reference_px: input size of the reference DNN, whose answers count as the truth.
        confidence: a detection's score must exceed this.
        nms_iou: of two boxes of one class that overlap by more than this, the better one stays.
    """

    name: str
    cfg: Path
    weights: str
    labels: tuple[str, ...]
    input_px: tuple[int, ...]
    reference_px: int
    confidence: float = 0.20
    nms_iou: float = 0.4


REQUIRED = ("cfg", "weights", "labels", "input_px", "reference_px")
OPTIONAL = ("confidence", "nms_iou")


def read_zoo(path: Path) -> ZooSpec:
    """Return the zoo that `path` describes; its `cfg` is relative to the file.

    Raises:
        ConfigError: the file is missing, no YAML, or a key is missing, unknown or unusable; the
            text names the file and the key.
    """
    value = read_keys(path, f"a zoo: {', '.join(REQUIRED)}")
    for key in REQUIRED:
        if key not in value:
            raise ConfigError(f"{path}: {key} is missing")
    for key in value:
        if key not in REQUIRED + OPTIONAL:
            known = ", ".join(REQUIRED + OPTIONAL)
            raise ConfigError(f"{path}: unknown key {key!r}; there are: {known}")
    return ZooSpec(
        name=path.stem,
        cfg=_cfg(path, value),
        weights=_text(path, value, "weights"),
        labels=_labels(path, value),
        input_px=_sizes(path, value),
        reference_px=_size(path, "reference_px", value["reference_px"]),
        confidence=_fraction(path, value, "confidence", ZooSpec.confidence),
        nms_iou=_fraction(path, value, "nms_iou", ZooSpec.nms_iou),
    )


def _cfg(path: Path, value: Mapping[str, Any]) -> Path:
    cfg = path.parent / _text(path, value, "cfg")
    if not cfg.is_file():
        raise ConfigError(f"{path}: cfg names {cfg}, which is no file")
    return cfg


def _text(path: Path, value: Mapping[str, Any], key: str) -> str:
    if not isinstance(value[key], str) or not value[key]:
        raise ConfigError(f"{path}: {key} must be a name, not {value[key]!r}")
    return str(value[key])


def _labels(path: Path, value: Mapping[str, Any]) -> tuple[str, ...]:
    labels = value["labels"]
    if not isinstance(labels, list) or not labels or not all(isinstance(x, str) for x in labels):
        raise ConfigError(f"{path}: labels must be a list of names")
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{path}: labels names a class twice")
    return tuple(labels)


def _sizes(path: Path, value: Mapping[str, Any]) -> tuple[int, ...]:
    sizes = value["input_px"]
    if not isinstance(sizes, list) or not sizes:
        raise ConfigError(f"{path}: input_px must be a list of sizes")
    px = tuple(_size(path, "input_px", size) for size in sizes)
    if any(a >= b for a, b in pairwise(px)):
        raise ConfigError(f"{path}: input_px must ascend")
    return px


def _size(path: Path, key: str, value: Any) -> int:
    if type(value) is not int or value <= 0:
        raise ConfigError(f"{path}: {key} must be a positive number of pixels, not {value!r}")
    return value


def _fraction(path: Path, value: Mapping[str, Any], key: str, default: float) -> float:
    number = value.get(key, default)
    if type(number) not in (int, float) or not 0 < number < 1:
        raise ConfigError(f"{path}: {key} must lie between 0 and 1, not {number!r}")
    return float(number)
