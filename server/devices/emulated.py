"""A device without a DNN: it sleeps as long as one would take, and knows what it would find."""

from __future__ import annotations

import time
from collections.abc import Sequence

from jellyfish.detections import Detections
from jellyfish.emulation import LOAD_MS, EmulatedAnswers
from jellyfish.errors import DataError, DeviceError
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.files.emulation import read_latency_model
from server.devices.base import DeviceSpec
from server.linux import sleep_precisely
from server.worker import BatchResult, WorkerFrame


class EmulatedDevice:
    """Waits and answers from files; see `server.devices.base.Device` for its methods.

    Opened on the thread that runs its batches: sleeps of that thread become precise.

    Args:
        spec: names the latency model, the detections and the seed.

    Raises:
        DataError: a file is missing or damaged, or the model lacks a DNN of the spec.
    """

    def __init__(self, spec: DeviceSpec) -> None:
        self._sizes, self._seed = spec.sizes, spec.seed
        self._model = read_latency_model(spec.model)
        if self._model.dnns != len(self._sizes):
            raise DataError(
                f"{spec.model} is for {self._model.dnns} DNNs, the profile for {len(self._sizes)}"
            )
        self._answers = EmulatedAnswers(
            {
                clip: {px: read_clip_detections(path) for px, path in sizes.items()}
                for clip, sizes in spec.detections.items()
            }
        )
        self._loaded: set[int] = set()
        self._batches = 0
        sleep_precisely()

    def load(self, dnn: int) -> None:
        """Take as long as loading is said to take."""
        if not 0 <= dnn < len(self._sizes):
            raise DeviceError(f"there is no DNN {dnn}")
        if dnn not in self._loaded:
            time.sleep(LOAD_MS / 1000)
            self._loaded.add(dnn)

    def evict(self, dnn: int) -> None:
        """Forget that it is loaded."""
        self._loaded.discard(dnn)

    def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Sleep until the batch would be done, and answer what the DNN found back then."""
        start_s = time.perf_counter()
        if dnn not in self._loaded:
            raise DeviceError(f"DNN {dnn} is not loaded")
        number, self._batches = self._batches, self._batches + 1
        size = max(len(frames), pad_to or 0)
        duration_ms = self._model.duration_ms(dnn, size, self._seed, number)
        px = self._sizes[dnn]
        answers: tuple[Detections | str, ...] = tuple(
            self._answers.answer(frame.tag, px, frame.px) for frame in frames
        )
        left_s = start_s + duration_ms / 1000 - time.perf_counter()
        if left_s > 0:
            time.sleep(left_s)
        return BatchResult(answers, 0.0, duration_ms, duration_ms)
