"""What the engine sees of a worker: one device that loads, evicts and runs DNNs.

In real time a worker is a process that runs a blocking device (server.worker_process); in virtual
time an emulated one lives in the event loop. The engine cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, Protocol, SupportsIndex

from jellyfish.detections import Detections
from jellyfish.errors import DeviceError


class WorkerDied(DeviceError):  # noqa: N818 - it reads as what happened
    """The worker's process has ended; whatever it had been asked to do is lost."""


@dataclass(frozen=True, slots=True)
class WorkerFrame:
    """One frame to run: the client's opaque `tag`, a JPEG `image`, and its side as sent (px).

    Inside a worker process, a large `image` is a read-only view of what the pipe has read.
    """

    tag: bytes
    image: bytes | memoryview
    px: int

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if int(protocol) < 5:
            return object.__reduce_ex__(self, protocol)
        # An image of a MB is worth a buffer of its own beside the pickle, never copied into it.
        return WorkerFrame, (self.tag, PickleBuffer(self.image), self.px)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch gave.

    Args:
        answers: one a frame, in the order asked: its detections, or text saying what was wrong
            with that very frame (the others are not affected).
        decode_ms: JPEG decode, resize and conversion of the whole batch.
        execute_ms: forward pass, head decode and NMS of the whole batch.
        busy_ms: how long the batch occupied the worker: the two above and the hand-over inside
            the worker. The span that a profile measures and the scheduler reckons with.
    """

    answers: tuple[Detections | str, ...]
    decode_ms: float
    execute_ms: float
    busy_ms: float = 0.0


class Worker(Protocol):
    """One device. Loads may run beside a batch; at most one batch runs at a time."""

    @property
    def alive(self) -> bool:
        """Whether the worker is started and has not died or been closed since."""

    async def start(self) -> None:
        """Start, or start again after death, with no DNN loaded.

        Raises:
            JellyfishError: the device cannot be opened; the text says why.
        """

    async def load(self, dnn: int) -> None:
        """Load and warm `dnn`; nothing happens where it is loaded already.

        Raises:
            WorkerDied: the worker is not alive, or died meanwhile.
            DeviceError: the device failed (out of memory, ...); the worker lives on.
        """

    async def ping(self) -> None:
        """Return once the worker has answered that it is there.

        Raises:
            WorkerDied: the worker is not alive, or died meanwhile.
        """

    async def evict(self, dnn: int) -> None:
        """Free what `dnn` takes on the device; nothing happens where it is not loaded.

        Raises:
            WorkerDied: the worker is not alive, or died meanwhile.
        """

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Run a batch on a loaded DNN, padded to `pad_to` images where that is more.

        Raises:
            WorkerDied: the worker is not alive, or died meanwhile.
            DeviceError: `dnn` is not loaded or the device failed; the worker lives on.
        """

    async def close(self) -> None:
        """End the worker, at once where it has something to do; harmless when repeated."""
