from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError
from jellyfish.files.labelled import Labelled, read_labelled


@pytest.fixture(scope="module")
def labelled(assets: Path) -> Labelled:
    return read_labelled(assets / "labelled" / "voc.tar", {0: "person", 5: "bus", 79: "toothbrush"})


def truth(labelled: Labelled, image: int, label: int) -> Detections:
    width, height = labelled.sizes[image]
    boxes = np.array(
        [
            [a["bbox"][0], a["bbox"][1], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]]
            for a in labelled.dataset["annotations"]
            if a["image_id"] == image and a["category_id"] == label + 1
        ],
        np.float32,
    ).reshape(-1, 4)
    return Detections(
        boxes=boxes / np.array([width, height, width, height], np.float32),
        scores=np.full(len(boxes), 0.9, np.float32),
        classes=np.full(len(boxes), label, np.int32),
    )


def test_images_and_labels_of_the_wanted_classes(labelled: Labelled) -> None:
    assert sorted(labelled.images) == [0, 1, 2]
    for image, encoded in labelled.images.items():
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert pixels.shape[1::-1] == labelled.sizes[image]
    found = [a["category_id"] for a in labelled.dataset["annotations"]]
    assert (found.count(1), found.count(6), len(found)) == (6, 2, 8)


def test_labels_score_against_themselves(labelled: Labelled) -> None:
    persons = {image: truth(labelled, image, 0) for image in labelled.images}
    assert sum(map(len, persons.values())) == 6
    assert labelled.score(persons).ap == pytest.approx(0.5)  # persons perfect, buses missed
    assert labelled.score({}).ap == 0.0
    other = persons[0]
    cars = Detections(boxes=other.boxes, scores=other.scores, classes=other.classes + 2)
    assert labelled.score({0: cars}).ap == 0.0


def test_no_label_of_the_classes(assets: Path) -> None:
    with pytest.raises(ConfigError, match="no label of the classes unicorn"):
        read_labelled(assets / "labelled" / "voc.tar", {0: "unicorn"})


@pytest.mark.parametrize("content", [b"no tar", b'{"images": [{"id": 1}]}'])
def test_what_holds_no_labels_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.tar"
    path.write_bytes(content)
    if content.startswith(b"{"):
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("annotations.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match=r"labels\.tar holds no labelled images"):
        read_labelled(path, {0: "person"})
    with pytest.raises(DataError, match=r"missing\.tar is missing"):
        read_labelled(tmp_path / "missing.tar", {0: "person"})
