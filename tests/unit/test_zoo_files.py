from pathlib import Path

import pytest
import yaml

from jellyfish.errors import ConfigError
from jellyfish.files.zoo import read_zoo
from tests.zoo_models import MIXED, YOLO

GOOD = {
    "cfg": "net.cfg",
    "weights": "some-weights",
    "labels": ["a", "b"],
    "input_px": [64, 128],
    "reference_px": 256,
}


def write(folder: Path, **changes: object) -> Path:
    (folder / "net.cfg").write_text("[net]\n")
    value = {k: v for k, v in (GOOD | changes).items() if v is not None}
    path = folder / "my-zoo.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def test_a_zoo_is_one_file(tmp_path: Path) -> None:
    zoo = read_zoo(write(tmp_path, nms_iou=0.5))
    assert zoo.name == "my-zoo"
    assert zoo.cfg == tmp_path / "net.cfg"
    assert zoo.labels == ("a", "b")
    assert zoo.input_px == (64, 128)
    assert (zoo.confidence, zoo.nms_iou) == (0.20, 0.5)


def test_the_zoos_in_the_box() -> None:
    assert YOLO.input_px == tuple(range(128, 609, 32))
    assert (YOLO.reference_px, YOLO.confidence, YOLO.nms_iou) == (640, 0.20, 0.4)
    assert len(YOLO.labels) == 80
    assert YOLO.labels[0] == "person"
    assert MIXED.labels == ("circle", "square", "star")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cfg", "absent.cfg"),
        ("cfg", None),
        ("weights", 7),
        ("labels", []),
        ("labels", ["a", 1]),
        ("labels", ["a", "a"]),
        ("input_px", 128),
        ("input_px", [128, 64]),
        ("input_px", [0, 64]),
        ("input_px", [64.5]),
        ("reference_px", True),
        ("confidence", 0),
        ("nms_iou", "half"),
        ("colour", "red"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, key: str, value: object) -> None:
    path = write(tmp_path, **{key: value})
    with pytest.raises(ConfigError, match=f"my-zoo.yaml.*{key}"):
        read_zoo(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ""])
def test_a_file_that_is_no_zoo(tmp_path: Path, text: str) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"zoo\.yaml"):
        read_zoo(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        read_zoo(tmp_path / "absent.yaml")
