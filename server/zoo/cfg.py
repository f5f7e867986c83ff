"""Darknet's network description: sections of `key=value` lines, read without torch.

A section is a layer; layer i is the i-th one after `[net]`, which is how `route` and `shortcut`
name others. (The format: https://github.com/AlexeyAB/darknet/wiki/CFG-Parameters-in-the-different-layers)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jellyfish.errors import ConfigError


@dataclass(frozen=True)
class Section:
    """One layer as written: its kind, its keys, and where it stands (for errors)."""

    kind: str
    options: dict[str, str]
    where: str

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the whole number under `key`.

        Raises:
            ConfigError: it is missing without a default, or no whole number.
        """
        return self.integers(key, None if default is None else (default,))[0]

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return the comma-separated whole numbers under `key`; raises as `integer` does."""
        if key not in self.options:
            if default is None:
                raise ConfigError(f"{self.where}: [{self.kind}] needs {key}")
            return default
        try:
            return tuple(int(word) for word in self.options[key].split(","))
        except ValueError:
            raise ConfigError(
                f"{self.where}: {key}={self.options[key]} is not made of whole numbers"
            ) from None

    def earlier(self, index: int, key: str) -> tuple[int, ...]:
        """Return the layers that `key` of layer `index` names; negative ones count back from it.

        Raises:
            ConfigError: one does not come before layer `index`.
        """
        sources = tuple(n if n >= 0 else index + n for n in self.integers(key))
        if not all(0 <= source < index for source in sources):
            raise ConfigError(
                f"{self.where}: {key}={self.options[key]} does not come before layer {index}"
            )
        return sources

    def number(self, key: str, default: float) -> float:
        """Return the number under `key`; raises as `integer` does."""
        try:
            return float(self.options.get(key, default))
        except ValueError:
            raise ConfigError(f"{self.where}: {key}={self.options[key]} is no number") from None


@dataclass(frozen=True)
class Head:
    """How to read the output of one detection layer.

    Args:
        layer: index of the `[yolo]` layer, whose input is the raw head.
        anchors: (width, height) in pixels of the input, one an anchor of this head.
        classes: number of classes.
        scale_xy: how far centres may leave their cell (YOLOv4's grid sensitivity; 1 = not).
    """

    layer: int
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_xy: float

    @property
    def channels(self) -> int:
        """Channels of the raw head: per anchor a box, an objectness and the classes."""
        return len(self.anchors) * (5 + self.classes)


@dataclass(frozen=True)
class Network:
    """A network description: the file, `[net]` and the layers after it."""

    path: Path
    channels: int
    layers: tuple[Section, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The detection heads, in the order of the file."""
        return tuple(_head(i, s) for i, s in enumerate(self.layers) if s.kind == "yolo")

    @property
    def stride(self) -> int:
        """Pixels of the input for one cell of the coarsest output: sizes are multiples of it."""
        strides: list[float] = []
        for index, section in enumerate(self.layers):
            strides.append(_stride(section, index, strides))
        return int(max(strides))


def _stride(section: Section, index: int, before: list[float]) -> float:
    last = before[-1] if before else 1.0
    match section.kind:
        case "convolutional" | "maxpool":
            return last * section.integer("stride", 1)
        case "upsample":
            return last / section.integer("stride", 2)
        case "route":
            return before[section.earlier(index, "layers")[0]]
    return last


def read_network(path: Path) -> Network:
    """Return the network that a Darknet cfg file describes.

    Raises:
        ConfigError: the file cannot be read, does not begin with `[net]`, or has no `[yolo]`.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    sections = tuple(_sections(path, text))
    if not sections or sections[0].kind not in ("net", "network"):
        raise ConfigError(f"{path} is no Darknet network: it must begin with [net]")
    network = Network(path=path, channels=sections[0].integer("channels", 3), layers=sections[1:])
    if not network.heads:
        raise ConfigError(f"{path} has no [yolo] layer: it detects nothing")
    return network


def _sections(path: Path, text: str) -> Iterator[Section]:
    section: Section | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        where = f"{path}, line {number}"
        if not line or line.startswith(";"):
            continue
        if line.startswith("["):
            if section is not None:
                yield section
            section = Section(kind=line.strip("[]").strip(), options={}, where=where)
        elif section is None or "=" not in line:
            raise ConfigError(f"{where}: {line!r} is neither [section] nor key=value")
        else:
            key, value = line.split("=", 1)
            section.options[key.strip()] = value.strip()
    if section is not None:
        yield section


def _head(layer: int, section: Section) -> Head:
    flat = section.integers("anchors")
    pairs = [(float(w), float(h)) for w, h in zip(flat[::2], flat[1::2], strict=False)]
    mask = section.integers("mask", tuple(range(len(pairs))))
    if len(flat) % 2 or not mask or min(mask) < 0 or max(mask) >= len(pairs):
        raise ConfigError(f"{section.where}: mask {mask} does not fit {len(pairs)} anchors")
    return Head(
        layer=layer,
        anchors=tuple(pairs[i] for i in mask),
        classes=section.integer("classes"),
        scale_xy=section.number("scale_x_y", 1.0),
    )
