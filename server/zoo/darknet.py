"""A Darknet network (cfg and weights) as a torch module that gives the raw heads.

Batch normalisation is folded into the convolution before it when the weights are read, so the
module is what inference needs and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from jellyfish.errors import ConfigError
from server.zoo.cfg import Network, Section, read_network
from server.zoo.weights import Floats, Weights

BN_EPS = 1e-6
ACTIVATIONS = ("leaky", "mish", "linear", "relu", "logistic")


class Convolution(nn.Module):
    """A convolution with batch norm folded in, and its activation."""

    def __init__(self, section: Section, channels: int, weights: Weights) -> None:
        super().__init__()
        filters, size = section.integer("filters"), section.integer("size", 1)
        groups = section.integer("groups", 1)
        padded = size // 2 if section.integer("pad", 0) else section.integer("padding", 0)
        self.conv = nn.Conv2d(
            channels, filters, size, section.integer("stride", 1), padded, groups=groups
        )
        self.activation = section.options.get("activation", "logistic")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"{section.where}: activation {self.activation} is not known")
        kernel, bias = _folded(section, (filters, channels // groups, size, size), weights)
        with torch.no_grad():
            self.conv.weight.copy_(torch.from_numpy(kernel))
            self.conv.bias.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of `x` (B, C, H, W)."""
        x = self.conv(x)
        match self.activation:
            case "leaky":
                return F.leaky_relu(x, 0.1)
            case "mish":
                return F.mish(x)
            case "relu":
                return F.relu(x)
            case "logistic":
                return torch.sigmoid(x)
        return x


def _folded(
    section: Section, shape: tuple[int, int, int, int], weights: Weights
) -> tuple[Floats, Floats]:
    """Return kernel and bias with the batch norm, which the file keeps apart, multiplied in."""
    filters = shape[0]
    bias = weights.take(filters)
    if not section.integer("batch_normalize", 0):
        return weights.take(*shape).copy(), bias.copy()
    gamma, mean, variance = (weights.take(filters).astype(np.float64) for _ in range(3))
    scale = gamma / np.sqrt(variance + BN_EPS)
    kernel = weights.take(*shape) * scale[:, None, None, None]
    return kernel.astype(np.float32), (bias - mean * scale).astype(np.float32)


class MaxPool(nn.Module):
    """Darknet's max pool: `size - 1` padded in all, the odd one at the right and bottom."""

    def __init__(self, section: Section) -> None:
        super().__init__()
        self.size = section.integer("size", 2)
        self.stride = section.integer("stride", 1)
        padding = section.integer("padding", self.size - 1)
        before, after = padding // 2, padding - padding // 2
        # Where windows tile the input, the padding would never be looked at.
        tiles = self.size == self.stride and padding < self.stride
        self.pad = (0, 0, 0, 0) if tiles else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled `x` (B, C, H, W)."""
        if any(self.pad):
            x = F.pad(x, self.pad, value=float("-inf"))
        return F.max_pool2d(x, self.size, self.stride)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement."""

    def __init__(self, section: Section) -> None:
        super().__init__()
        self.scale = float(section.integer("stride", 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (B, C, H, W) enlarged."""
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


class Route(nn.Module):
    """Earlier layers' outputs side by side, or one group of their channels."""

    def __init__(self, section: Section, index: int) -> None:
        super().__init__()
        self.sources = section.earlier(index, "layers")
        self.groups = section.integer("groups", 1)
        self.group = section.integer("group_id", 0)
        if not 0 <= self.group < self.groups:
            raise ConfigError(f"{section.where}: group_id {self.group} of {self.groups} groups")

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the outputs of `sources` joined."""
        if self.groups > 1:
            parts = tuple(part.chunk(self.groups, dim=1)[self.group] for part in parts)
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class Shortcut(nn.Module):
    """The sum of the last output and an earlier one."""

    def __init__(self, section: Section, index: int) -> None:
        super().__init__()
        self.sources = (index - 1, *section.earlier(index, "from"))
        if section.options.get("activation", "linear") != "linear":
            raise ConfigError(f"{section.where}: a shortcut's activation must be linear")

    def forward(self, last: Tensor, earlier: Tensor) -> Tensor:
        """Return the sum of the outputs of `sources`."""
        return last + earlier


Joins = (Route, Shortcut)  # what reads other outputs than the last


class Darknet(nn.Module):
    """The network: images (B, C, H, W), RGB from 0 to 1, to one raw head (B, A(5+K), h, w) each."""

    def __init__(self, network: Network, weights: Weights) -> None:
        super().__init__()
        self.network = network
        self.steps = nn.ModuleList()
        channels: list[int] = []  # of each layer's output
        for index, section in enumerate(network.layers):
            last = channels[-1] if channels else network.channels
            step = _step(section, index, last, weights)
            self.steps.append(step)
            channels.append(_channels(section, step, channels, last))
        joins = [step for step in self.steps if isinstance(step, Joins)]
        self._reused = frozenset(i for step in joins for i in step.sources)
        for head in network.heads:
            if channels[head.layer] != head.channels:
                raise ConfigError(
                    f"{network.layers[head.layer].where}: the layer before has "
                    f"{channels[head.layer]} filters, this head needs {head.channels}"
                )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the raw heads, in the order of the cfg."""
        kept: dict[int, Tensor] = {}
        heads: list[Tensor] = []
        x = images
        for index, step in enumerate(self.steps):
            x = step(*(kept[i] for i in step.sources)) if isinstance(step, Joins) else step(x)
            if index in self._reused:
                kept[index] = x
            if self.network.layers[index].kind == "yolo":
                heads.append(x)
        return heads


def _step(section: Section, index: int, channels: int, weights: Weights) -> nn.Module:
    match section.kind:
        case "convolutional":
            return Convolution(section, channels, weights)
        case "maxpool":
            return MaxPool(section)
        case "upsample":
            return Upsample(section)
        case "route":
            return Route(section, index)
        case "shortcut":
            return Shortcut(section, index)
        case "yolo":
            return nn.Identity()
    raise ConfigError(f"{section.where}: layers of kind [{section.kind}] are not known")


def _channels(section: Section, step: nn.Module, channels: list[int], last: int) -> int:
    if isinstance(step, Convolution):
        return step.conv.out_channels
    if isinstance(step, Shortcut) and len({channels[i] for i in step.sources}) > 1:
        raise ConfigError(f"{section.where}: a shortcut joins outputs of different channels")
    if isinstance(step, Route):
        return sum(channels[i] for i in step.sources) // step.groups
    return last


def build(cfg: Path, weights: Path) -> Darknet:
    """Return the network of `cfg` with the values of `weights`, ready for inference.

    Raises:
        ConfigError: the cfg cannot be used; the text names file and line.
        DataError: the weights are missing, cut short or another network's.
    """
    network, values = read_network(cfg), Weights(weights)
    module = Darknet(network, values)
    values.check_all_used()
    return module.eval().requires_grad_(False)
