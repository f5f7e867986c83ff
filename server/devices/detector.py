"""The device that all kinds share: everything around the forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError, DeviceError
from server.devices.base import DeviceSpec
from server.worker import BatchResult, WorkerFrame
from server.zoo.cfg import Network, read_network
from server.zoo.decode import decode

START_OF_IMAGE = b"\xff\xd8"
# As it is stored, whatever orientation its EXIF data asks for.
AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Forward(Protocol):
    """A network on some device; may be called from two threads at once."""

    def __call__(self, images: Images) -> list[Floats]:
        """Return the raw heads (B, A(5+K), h, w) of RGB images (B, H, W, 3).

        Raises:
            DeviceError: the device failed.
        """


class Detector:
    """A `Device` around a forward pass.

    A zoo's DNNs are one network at several input sizes, so they share its weights: what loading
    adds is the warm-up of that size, and evicting it frees nothing but the claim.
    """

    def __init__(self, spec: DeviceSpec, forward: Forward) -> None:
        network = read_network(spec.zoo.cfg)
        _check(spec, network)
        self._spec = spec
        self._heads = network.heads
        self._forward = forward
        self._loaded: set[int] = set()
        self._warm: set[int] = set()

    def load(self, dnn: int) -> None:
        """Warm `dnn` with every batch size up to the spec's `max_batch`.

        Raises:
            DeviceError: there is no such DNN, or the device failed.
            DataError: the model is another network's.
        """
        sizes = self._spec.sizes
        if not 0 <= dnn < len(sizes):
            raise DeviceError(f"there is no DNN {dnn}: the zoo has {len(sizes)}")
        if dnn not in self._warm:
            for batch in range(1, self._spec.max_batch + 1):
                raw = self._forward(np.zeros((batch, sizes[dnn], sizes[dnn], 3), np.uint8))
            self._check_heads(raw)
            self._warm.add(dnn)
        self._loaded.add(dnn)

    def _check_heads(self, raw: list[Floats]) -> None:
        got, want = [r.shape[1] for r in raw], [head.channels for head in self._heads]
        if got != want:
            raise DataError(
                f"{self._spec.model} gives heads of {got} channels, {self._spec.zoo.cfg} says "
                f"{want}: export the zoo again"
            )

    def evict(self, dnn: int) -> None:
        """Forget `dnn`; nothing happens where it is not loaded."""
        self._loaded.discard(dnn)

    def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Return the detections of a batch; a frame that cannot be decoded gets text instead.

        Raises:
            DeviceError: `dnn` is not loaded, or the device failed.
        """
        if dnn not in self._loaded:
            raise DeviceError(f"DNN {dnn} is not loaded")
        start = perf_counter()
        images, faults = self._decode(frames, self._spec.sizes[dnn], pad_to or 0)
        decoded = perf_counter()
        answers = self._detect(images, len(frames) - len(faults))
        done = perf_counter()
        return BatchResult(
            answers=tuple(faults[i] if i in faults else next(answers) for i in range(len(frames))),
            decode_ms=(decoded - start) * 1000.0,
            execute_ms=(done - decoded) * 1000.0,
            busy_ms=(done - start) * 1000.0,
        )

    def _decode(
        self, frames: Sequence[WorkerFrame], px: int, pad_to: int
    ) -> tuple[Images, dict[int, str]]:
        """Return the images that could be decoded, then black ones up to `pad_to`; and faults."""
        images = np.zeros((max(len(frames), pad_to), px, px, 3), np.uint8)
        faults: dict[int, str] = {}
        good = 0
        for i, frame in enumerate(frames):
            try:
                images[good] = decode_jpeg(frame.image, px)
                good += 1
            except ValueError as error:
                faults[i] = str(error)
        return images[: max(good, pad_to if good else 0)], faults

    def _detect(self, images: Images, frames: int) -> Iterator[Detections]:
        if not frames:
            return iter(())
        raw = [head[:frames] for head in self._forward(images)]
        zoo = self._spec.zoo
        return iter(decode(raw, self._heads, images.shape[1], zoo.confidence, zoo.nms_iou))


def decode_jpeg(data: bytes | memoryview, px: int) -> Images:
    """Return a JPEG as RGB (px, px, 3), resized bilinearly where its size differs.

    What it may hold is the server's to check (jellyfish.jpeg): a decoder fills what is missing
    with grey.

    Raises:
        ValueError: it is no JPEG that OpenCV decodes, or has more pixels than it is allowed to.
    """
    if data[:2] != START_OF_IMAGE:  # other formats, which OpenCV reads too, nobody has checked
        raise ValueError("not a JPEG")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), AS_STORED)
    except cv2.error as error:
        raise ValueError(f"the JPEG cannot be decoded: {error.err}") from None
    if image is None:
        raise ValueError("the JPEG cannot be decoded")
    if image.shape[:2] != (px, px):
        image = cv2.resize(image, (px, px), interpolation=cv2.INTER_LINEAR)
    return np.asarray(image, np.uint8)


def _check(spec: DeviceSpec, network: Network) -> None:
    labels = len(spec.zoo.labels)
    for head in network.heads:
        if head.classes != labels:
            raise ConfigError(
                f"zoo {spec.zoo.name}: {labels} labels, but {network.path.name} "
                f"has {head.classes} classes"
            )
    for px in spec.sizes:
        if px % network.stride:
            raise ConfigError(
                f"zoo {spec.zoo.name}: input size {px} is no multiple of {network.stride}, "
                f"the stride of {network.path}"
            )
