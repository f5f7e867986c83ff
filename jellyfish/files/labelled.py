"""Images with labels made by people: a tar file of annotations.json (COCO) and the images.

Beside the reference DNN's answers, which are model output, labels allow an AP that is one.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jellyfish.average_precision import AveragePrecision, against_labels, labels
from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.detections import coco_entries


@dataclass(frozen=True, eq=False)
class Labelled:
    """Encoded images by number, their sizes (width, height), and the labels as a COCO data set."""

    images: Mapping[int, bytes]
    sizes: Mapping[int, tuple[int, int]]
    dataset: Mapping[str, Any]

    def score(self, found: Mapping[int, Detections]) -> AveragePrecision:
        """Score what was found in the images, over the classes that `read_labelled` was given."""
        wanted = {category["id"] for category in self.dataset["categories"]}
        results = [
            entry
            for image, (width, height) in self.sizes.items()
            for entry in coco_entries({image: found.get(image, Detections.none())}, width, height)
        ]
        return against_labels([e for e in results if e["category_id"] in wanted], self.dataset)


def read_labelled(path: Path, classes: Mapping[int, str]) -> Labelled:
    """Return the images in `path` and their labels of the given classes (index to name).

    Raises:
        DataError: the file is missing, no tar, or holds no annotations.json that fits it.
        ConfigError: none of its labels is of these classes.
    """
    try:
        with tarfile.open(path) as tar:
            value = json.load(_member(tar, "annotations.json"))
            names = {int(image["id"]): image["file_name"] for image in value["images"]}
            images = {image: _member(tar, name).read() for image, name in names.items()}
        sizes = {int(i["id"]): (int(i["width"]), int(i["height"])) for i in value["images"]}
        dataset = _dataset(value, set(images), classes)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no labelled images in COCO format: {error!r}") from error
    if not dataset["annotations"]:
        raise ConfigError(f"{path} has no label of the classes {', '.join(classes.values())}")
    return Labelled(images=images, sizes=sizes, dataset=dataset)


def _member(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _dataset(value: Any, images: set[int], classes: Mapping[int, str]) -> dict[str, Any]:
    index = {name: i for i, name in classes.items()}
    ours = {c["id"]: index[c["name"]] for c in value["categories"] if c["name"] in index}
    boxes = [
        {**label, "category_id": ours[label["category_id"]] + 1}
        for label in value["annotations"]
        if label["category_id"] in ours and not label.get("iscrowd")
    ]
    return labels(boxes, images, ours.values())
