from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from jellyfish.errors import ConfigError, DataError
from scripts import export_zoo
from server.zoo.darknet import build
from tests.zoo_models import MIXED, ROOT, write_mixed_weights

ASSETS = """
mixed-weights:
  file: weights/mixed.weights
  sha256: {hash}
  licence: none
  sources: [{{url: "https://nowhere.invalid/mixed.weights"}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> dict[str, str]:
    assets = tmp_path / "assets.yaml"
    assets.write_text(ASSETS.format(hash="a" * 64))
    return {"zoo": "tests/data/zoo/mixed.yaml", "assets": str(assets)}


def test_the_stage_writes_what_onnx_runtime_serves(tmp_path: Path, config: dict[str, str]) -> None:
    (tmp_path / "data" / "weights").mkdir(parents=True)
    weights = write_mixed_weights(tmp_path / "data" / "weights" / "mixed.weights")
    out = export_zoo.main(config, ROOT, tmp_path)
    assert out == tmp_path / "zoo" / "mixed" / "model.onnx"
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    module = build(MIXED.cfg, weights)
    for batch, px in ((1, 32), (3, 96)):
        images = np.random.default_rng(px).uniform(0, 1, (batch, 3, px, px)).astype(np.float32)
        got, want = session.run(None, {"images": images}), module(torch.from_numpy(images))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-4)


def test_missing_weights_leave_nothing_behind(tmp_path: Path, config: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"mixed\.weights cannot be read"):
        export_zoo.main(config, ROOT, tmp_path)
    assert not (tmp_path / "zoo" / "mixed" / "model.onnx").exists()


def test_weights_that_no_asset_names(tmp_path: Path, config: dict[str, str]) -> None:
    config["assets"] = str(ROOT / "config" / "assets.yaml")
    with pytest.raises(ConfigError, match=r"no asset 'mixed-weights'.*yolov3-tiny-weights"):
        export_zoo.main(config, ROOT, tmp_path)
