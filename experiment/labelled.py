"""Accuracy on images that people labelled, where a config names some.

The asset is a zip archive, or a folder's `*.json` file, in COCO format: annotations in JSON, and
the images by the file names in it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from client.source import encode
from experiment.detections import find, reference_device
from experiment.grid import Config
from experiment.paths import ROOT, asset_path, needed, zoo_of
from jellyfish.average_precision import against_labels
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json
from jellyfish.files.detections import coco_entries

ReadImage = Callable[[str], bytes]


def labelled_precision(config: Config, px: int, results: Path, root: Path = ROOT) -> float:
    """Return the AP (IoU .50 to .95) of the zoo's network at `px` on the labelled images.

    Over the classes that zoo and labels share by name.

    Raises:
        DataError: the asset is missing, in no such format, or shares no class with the zoo.
    """
    path = needed(asset_path(config, config["scoring"]["labelled"], results, root))
    dataset, read = open_labelled(path)
    truth = of_zoo(path, dataset, zoo_of(config, root).labels)
    device = reference_device(config, px, results, root)
    results_: list[dict[str, Any]] = []
    for entry in truth["images"]:
        image = _decode(path, entry["file_name"], read(entry["file_name"]))
        found = find(device, encode(image, px), px, entry["file_name"])
        results_ += coco_entries({int(entry["id"]): found}, image.shape[1], image.shape[0])
    return against_labels(results_, truth).ap


def open_labelled(path: Path) -> tuple[dict[str, Any], ReadImage]:
    """Return the COCO data set in `path` and a function that reads an image by its file name.

    Raises:
        DataError: there is no COCO data set in it.
    """
    if not zipfile.is_zipfile(path):
        return _checked(path, read_json(path)), lambda name: _file(path.parent / name)
    archive = zipfile.ZipFile(path)
    members = [name for name in archive.namelist() if name.endswith(".json")]
    if len(members) != 1:
        raise DataError(f"{path} holds {len(members)} JSON files; want one, in COCO format")
    folder = members[0].rpartition("/")[0]
    return (
        _checked(path, json.loads(archive.read(members[0]))),
        lambda name: archive.read(f"{folder}/{name}" if folder else name),
    )


def of_zoo(path: Path, dataset: dict[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """Return `dataset` with the zoo's classes alone, numbered as the zoo's detections are.

    Raises:
        DataError: they share no class.
    """
    number = {
        category["id"]: labels.index(category["name"]) + 1
        for category in dataset["categories"]
        if category["name"] in labels
    }
    if not number:
        raise DataError(f"{path} has no class of the zoo's")
    return {
        "info": {},
        "images": dataset["images"],
        "categories": [{"id": i} for i in sorted(number.values())],
        "annotations": [
            # From 1: pycocotools takes 0 for "not matched".
            {"iscrowd": 0, **annotation, "id": i, "category_id": number[annotation["category_id"]]}
            for i, annotation in enumerate(dataset["annotations"], 1)
            if annotation["category_id"] in number
        ],
    }


def _checked(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not {"images", "categories", "annotations"} <= set(value):
        raise DataError(f"{path} is no COCO data set: images, categories, annotations")
    return value


def _file(path: Path) -> bytes:
    return needed(path).read_bytes()


def _decode(path: Path, name: str, data: bytes) -> Any:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path}: image {name} cannot be decoded")
    return np.asarray(image, np.uint8)
