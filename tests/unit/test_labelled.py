from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from experiment.labelled import of_zoo, open_labelled
from jellyfish.average_precision import against_labels

LABELS = ("person", "bicycle", "car", "motorcycle", "airplane", "bus")


@pytest.fixture(scope="module")
def archive(assets: Path) -> Path:
    return assets / "labelled" / "voc.zip"


def test_the_labelled_asset_holds_images_of_the_sizes_that_it_says(archive: Path) -> None:
    dataset, read = open_labelled(archive)
    assert len(dataset["images"]) == 3
    for entry in dataset["images"]:
        pixels = cv2.imdecode(np.frombuffer(read(entry["file_name"]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        assert pixels.shape[:2] == (entry["height"], entry["width"])


def test_labels_score_against_themselves(archive: Path) -> None:
    truth = of_zoo(archive, open_labelled(archive)[0], LABELS)
    found = [{**label, "score": 0.9} for label in truth["annotations"]]
    assert [label["category_id"] for label in found].count(1) == 6
    assert against_labels(found, truth).ap == pytest.approx(1.0)
    classes = {label["category_id"] for label in found}
    buses = LABELS.index("bus") + 1
    rest = [label for label in found if label["category_id"] != buses]
    wrong = [{**label, "category_id": LABELS.index("bicycle") + 1} for label in found]
    score = against_labels([*rest, *wrong], truth)  # bicycles: labels have none, so they are free
    assert score.ap == pytest.approx(1 - 1 / len(classes))
