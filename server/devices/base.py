"""What a device is: the blocking, single-process side of a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jellyfish.errors import ConfigError
from jellyfish.files.zoo import ZooSpec
from server.worker import BatchResult, WorkerFrame

KINDS = ("onnxruntime", "torch", "emulated")
SETTINGS = ("kind", "device", "threads", "half")
EMULATED_SETTINGS = ("kind", "profile", "max_batch")


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """Everything that a worker process needs to open its device; it travels to it as a pickle.

    Args:
        kind: `onnxruntime`, `torch` or `emulated`.
        zoo: the DNNs.
        model: what holds the weights: model.onnx for onnxruntime, the Darknet weights for torch;
            for emulated, the latency model emulation.json.
        input_px: input size of DNN m; the zoo's sizes when empty.
        device: `cpu` or, for torch, `cuda:N`.
        threads: CPU threads of one forward pass.
        half: 16-bit floats (CUDA only).
        max_batch: loading a DNN warms batch sizes 1 to this.
        cores: the CPU cores that the worker process keeps to; None for any.
        detections: emulated: per clip and input size, the file of what was found in it.
        seed: emulated: of its latencies.
    """

    kind: str
    zoo: ZooSpec
    model: Path
    input_px: tuple[int, ...] = ()
    device: str = "cpu"
    threads: int = 1
    half: bool = False
    max_batch: int = 1
    cores: tuple[int, ...] | None = None
    detections: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    seed: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """Input size of each DNN, in pixels."""
        return self.input_px or self.zoo.input_px


class Device(Protocol):
    """Executes DNNs of one zoo. `load` and `evict` may be called beside `run`, by one thread."""

    def load(self, dnn: int) -> None:
        """Load `dnn` and run every batch size up to the spec's `max_batch` once.

        Raises:
            DeviceError: no such DNN, or the device failed.
        """

    def evict(self, dnn: int) -> None:
        """Free what `dnn` alone takes; nothing happens where it is not loaded."""

    def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Decode, resize, infer, decode heads and suppress, for one batch.

        Raises:
            DeviceError: `dnn` is not loaded, or the device failed.
        """


def known_kind(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the kind of the device that the config describes as `settings`.

    Raises:
        ConfigError: there is no such kind, or a key that is none of `keys`.
    """
    kind = settings.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"devices: unknown kind {kind!r}; there are: {', '.join(KINDS)}")
    unknown = sorted(set(settings) - set(keys))
    if unknown:
        raise ConfigError(f"devices: unknown key {unknown[0]!r}; there are: {', '.join(keys)}")
    return str(kind)


def emulated_spec(
    settings: Mapping[str, Any],
    zoo: ZooSpec,
    *,
    emulation: Path,
    detections: Mapping[str, Mapping[int, Path]],
    seed: int,
    max_batch: int,
    input_px: tuple[int, ...] = (),
    cores: tuple[int, ...] | None = None,
) -> DeviceSpec:
    """Return the spec of an emulated device: see `DeviceSpec`.

    Raises:
        ConfigError: a key is unknown.
    """
    return DeviceSpec(
        kind=known_kind(settings, EMULATED_SETTINGS),
        zoo=zoo,
        model=emulation,
        input_px=input_px,
        max_batch=max_batch,
        cores=cores,
        detections=detections,
        seed=seed,
    )


def device_spec(
    settings: Mapping[str, Any],
    zoo: ZooSpec,
    *,
    onnx: Path,
    weights: Path,
    max_batch: int,
    input_px: tuple[int, ...] = (),
    cores: tuple[int, ...] | None = None,
) -> DeviceSpec:
    """Return the spec of a device that the config describes as `settings`.

    `onnx` and `weights` are the two forms of the model; the one that the kind needs is taken.

    Raises:
        ConfigError: the kind or a key is unknown, or does not fit the kind.
    """
    kind = known_kind(settings, SETTINGS)
    device = str(settings.get("device", "cpu"))
    if kind == "onnxruntime" and device != "cpu":
        raise ConfigError(f"devices: onnxruntime serves on cpu alone; use torch for {device}")
    half = bool(settings.get("half", False))
    if half and not device.startswith("cuda"):
        raise ConfigError(f"devices: half needs a CUDA device, not {device}")
    threads = settings.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"devices: threads must be a whole number from 1, not {threads!r}")
    return DeviceSpec(
        kind=kind,
        zoo=zoo,
        model=onnx if kind == "onnxruntime" else weights,
        input_px=input_px,
        device=device,
        threads=threads,
        half=half,
        max_batch=max_batch,
        cores=cores,
    )
