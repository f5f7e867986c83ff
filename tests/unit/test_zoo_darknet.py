"""The Darknet reader, against OpenCV's own."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from jellyfish.errors import ConfigError, DataError
from server.zoo.cfg import read_network
from server.zoo.darknet import build
from tests.zoo_models import MIXED, YOLO, video_frames, write_mixed_weights, yolo_weights


def heads_of_both(
    cfg: Path, weights: Path, names: list[str], blob: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    ours = [head.numpy() for head in build(cfg, weights)(torch.from_numpy(blob))]
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.setInput(blob)
    return list(zip(ours, net.forward(names), strict=True))


@pytest.mark.parametrize("px", [128, 320, 608])
def test_real_weights_give_the_heads_that_opencv_gives(assets: Path, px: int) -> None:
    frame = video_frames(assets, 1)[0]
    blob = cv2.dnn.blobFromImage(cv2.resize(frame, (px, px)), 1 / 255, swapRB=True)
    pairs = heads_of_both(YOLO.cfg, yolo_weights(assets), ["conv_15", "conv_22"], blob)
    assert [ours.shape for ours, _ in pairs] == [
        (1, 255, px // 32, px // 32),
        (1, 255, px // 16, px // 16),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("px", [32, 64, 96])
def test_another_architecture_gives_the_heads_that_opencv_gives(tmp_path: Path, px: int) -> None:
    weights = write_mixed_weights(tmp_path / "mixed.weights")
    blob = np.random.default_rng(px).uniform(0, 1, (2, 3, px, px)).astype(np.float32)
    pairs = heads_of_both(MIXED.cfg, weights, ["conv_10", "conv_15"], blob)
    assert [ours.shape[1] for ours, _ in pairs] == [16, 8]
    for ours, theirs in pairs:
        assert np.abs(ours).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


def test_the_coarsest_output_sets_the_stride() -> None:
    assert read_network(YOLO.cfg).stride == 32
    assert read_network(MIXED.cfg).stride == 8


def test_heads_know_their_anchors() -> None:
    coarse, fine = read_network(YOLO.cfg).heads
    assert coarse.anchors == ((81, 82), (135, 169), (344, 319))
    assert fine.anchors == ((23, 27), (37, 58), (81, 82))
    assert [head.scale_xy for head in read_network(MIXED.cfg).heads] == [1.1, 1.0]


@pytest.mark.parametrize(
    ("keep", "says"), [(-4, "needs more"), (-3, "whole floats"), (10, "header")]
)
def test_weights_cut_short_are_named(tmp_path: Path, keep: int, says: str) -> None:
    weights = write_mixed_weights(tmp_path / "mixed.weights")
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"mixed.weights is cut short: .*{says}"):
        build(MIXED.cfg, weights)


def test_weights_with_floats_left_over_are_named(tmp_path: Path) -> None:
    weights = write_mixed_weights(tmp_path / "mixed.weights")
    weights.write_bytes(weights.read_bytes() + bytes(8))
    with pytest.raises(DataError, match=r"mixed\.weights is too long: 2 of its"):
        build(MIXED.cfg, weights)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.weights cannot be read"):
        build(MIXED.cfg, tmp_path / "absent.weights")


def test_old_weights_have_a_shorter_header(tmp_path: Path) -> None:
    new = write_mixed_weights(tmp_path / "new.weights")
    old = tmp_path / "old.weights"
    old.write_bytes(np.array([0, 1, 0, 0], "<i4").tobytes() + new.read_bytes()[20:])
    blob = torch.full((1, 3, 32, 32), 0.5)
    for a, b in zip(build(MIXED.cfg, new)(blob), build(MIXED.cfg, old)(blob), strict=True):
        assert torch.equal(a, b)


HEAD = "[net]\n[convolutional]\nfilters=24\nsize=1\nactivation=linear\n"
YOLO_LAYER = "[yolo]\nmask=0,1,2\nanchors=1,2, 3,4, 5,6\nclasses=3\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[convolutional]\n", r"must begin with \[net\]"),
        ("[net]\nchannels=3\n", r"no \[yolo\] layer"),
        ("width=3\n[net]\n", "line 1: 'width=3' is neither"),
        (HEAD + "[yolo]\nmask=0,9\nanchors=1,2\nclasses=3\n", "line 6: mask .* does not fit 1"),
        (HEAD + "[yolo]\nmask=0\nanchors=1,2\n", "line 6: .yolo. needs classes"),
        (HEAD.replace("24", "x") + YOLO_LAYER, "line 2: filters=x is not made of whole"),
        (HEAD.replace("24", "7") + YOLO_LAYER, "line 6: .* 7 filters, this head needs 24"),
        (HEAD.replace("linear", "swish") + YOLO_LAYER, "line 2: activation swish"),
        (HEAD + "[lstm]\n" + YOLO_LAYER, r"line 6: layers of kind \[lstm\] are not known"),
        (
            HEAD + "[route]\nlayers=5\n" + YOLO_LAYER,
            "line 6: layers=5 does not come before layer 1",
        ),
        (HEAD + "[shortcut]\nfrom=-2\n" + YOLO_LAYER, "line 6: from=-2 does not come before"),
    ],
)
def test_a_network_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    cfg.write_text(text)
    weights.write_bytes(np.zeros(5 + 4096, "<i4").tobytes())
    with pytest.raises(ConfigError, match=says) as caught:
        build(cfg, weights)
    assert str(cfg) in str(caught.value)
