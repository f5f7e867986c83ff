"""The network as an ONNX file, so that serving on a CPU needs no torch (and starts sooner)."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from jellyfish.files.atomic import whole_file
from server.zoo.darknet import build

INPUT = "images"


def export(cfg: Path, weights: Path, out: Path) -> None:
    """Write the network to `out`, whole: batch, height and width stay open.

    The input `images` is (B, C, H, W) float32, RGB from 0 to 1; the outputs `head_0`, ... are the
    raw heads in the order of the cfg.

    Raises:
        ConfigError: the cfg cannot be used.
        DataError: the weights do not fit it.
    """
    module = build(cfg, weights)
    side = 2 * module.network.stride
    heads = [f"head_{i}" for i in range(len(module.network.heads))]
    axes = {INPUT: {0: "batch", 2: "height", 3: "width"}}
    for head in heads:  # each has a height and width of its own
        axes[head] = {0: "batch", 2: f"{head}_height", 3: f"{head}_width"}
    with whole_file(out) as temporary, warnings.catch_warnings():
        # The exporter that traces is deprecated; the new one wants another package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, module.network.channels, side, side),),
            str(temporary),
            input_names=[INPUT],
            output_names=heads,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
