"""Detections on disk: the COCO results format, so that pycocotools and others read them as is.

One entry a detection: image_id, category_id (class index + 1), bbox (x, y, width, height in
pixels), score. Two keys more, which COCO readers pass over, give the size in which the pixels
count: `width` and `height`. So no second file is needed to read boxes back as fractions. A frame
in which nothing was found has no entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jellyfish.detections import Detections
from jellyfish.errors import DataError
from jellyfish.files.atomic import read_json, whole_file

CLIENT_STRIDE = 1_000_000
_KEYS = ("image_id", "category_id", "score", "width", "height")


def image_id(client: int, frame: int) -> int:
    """Return the number under which a run's detections of a client's tick are kept."""
    return client * CLIENT_STRIDE + frame


def coco_entries(
    detections: Mapping[int, Detections], width: int, height: int
) -> list[dict[str, Any]]:
    """Return one COCO results entry a box, in order of image_id, then of score."""
    return [
        entry
        for image in sorted(detections)
        for entry in _image_entries(image, detections[image], width, height)
    ]


def _image_entries(image: int, found: Detections, width: int, height: int) -> list[dict[str, Any]]:
    corners = found.boxes.astype(np.float64) * (width, height, width, height)
    corners[:, 2:] -= corners[:, :2]
    rows = zip(
        np.round(corners, 4).tolist(),
        np.round(found.scores.astype(np.float64), 6).tolist(),
        found.classes.tolist(),
        strict=True,
    )
    return [
        {
            "image_id": image,
            "category_id": label + 1,
            "bbox": box,
            "score": score,
            "width": width,
            "height": height,
        }
        for box, score, label in rows
    ]


def write_coco(path: Path, detections: Mapping[int, Detections], width: int, height: int) -> None:
    """Write the detections of each image to `path`, whole; pixels are those of width x height.

    In order of image_id, then of score. What many images share is put into words once: clips
    loop, and an emulated device answers a frame with the same detections each time.
    """
    tails: dict[int, list[str]] = {}
    with whole_file(path) as temporary, temporary.open("w") as file:
        separator = "["
        for image in sorted(detections):
            found = detections[image]
            known = tails.get(id(found))
            if known is None:
                known = tails[id(found)] = _tails(found, width, height)
            for tail in known:
                file.write(f'{separator}{{"image_id": {image}, {tail}')
                separator = ", "
        file.write("[]\n" if separator == "[" else "]\n")


def _tails(found: Detections, width: int, height: int) -> list[str]:
    """Return the COCO results entry of each box, as JSON, but for its first key, image_id."""
    entries = _image_entries(0, found, width, height)
    return [json.dumps(entry, allow_nan=False).partition(", ")[2] for entry in entries]


def read_coco(path: Path) -> dict[int, Detections]:
    """Return the detections of each image that has any.

    Raises:
        DataError: the file is missing, or no list of COCO results with width and height.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f"{path} holds no list of COCO results; remove it and run again")
    if not entries:
        return {}
    try:
        return _grouped(entries)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"{path}: an entry lacks {', '.join(_KEYS)} or bbox as numbers ({error!r}); "
            "remove it and run again"
        ) from error


def _grouped(entries: list[dict[str, Any]]) -> dict[int, Detections]:
    images, categories, scores, widths, heights = (
        np.array([entry[key] for entry in entries], np.float64) for key in _KEYS
    )
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(len(entries), 4)
    if (widths <= 0).any() or (heights <= 0).any():
        raise ValueError("width and height must be positive")
    boxes[:, 2:] += boxes[:, :2]
    boxes /= np.stack([widths, heights, widths, heights], axis=1)
    order = np.lexsort((-scores, images))  # by image, then highest score first
    images = images[order].astype(np.int64)
    ids, starts = np.unique(images, return_index=True)
    parts = np.split(order, starts[1:])
    return {
        int(image): Detections(
            boxes=boxes[rows].astype(np.float32),
            scores=scores[rows].astype(np.float32),
            classes=(categories[rows] - 1).astype(np.int32),
        )
        for image, rows in zip(ids, parts, strict=True)
    }
