"""An emulated worker that lives in the event loop, for virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from jellyfish.detections import Detections
from jellyfish.emulation import LOAD_MS, EmulatedAnswers, LatencyModel
from jellyfish.errors import DeviceError
from server.worker import BatchResult, WorkerDied, WorkerFrame


class EmulatedWorker:
    """Waits on the loop's clock and answers from stored detections; see `server.worker.Worker`.

    Args:
        model: for how long batches occupy it.
        answers: what the DNNs find.
        input_px: size of each DNN.
        seed: of its latencies (`jellyfish.emulation.worker_seed`).
        hand_over_ms: gives what the way to the worker and back takes a batch, beside what
            occupies it.
        load_ms: what loading a DNN takes.
    """

    def __init__(
        self,
        model: LatencyModel,
        answers: EmulatedAnswers,
        input_px: Sequence[int],
        *,
        seed: int,
        hand_over_ms: Callable[[], float] = float,  # nothing
        load_ms: float = LOAD_MS,
    ) -> None:
        self._model, self._answers, self._input_px = model, answers, tuple(input_px)
        self._seed, self._hand_over_ms, self._load_ms = seed, hand_over_ms, load_ms
        self._loop = asyncio.get_running_loop()
        self._loaded: set[int] = set()
        self._waits: dict[asyncio.Future[None], asyncio.TimerHandle] = {}
        self._batches = 0
        self._alive = False

    @property
    def alive(self) -> bool:
        """Whether it is started and has not died or been closed since."""
        return self._alive

    def die(self) -> None:
        """Die like a process that is killed: what it had been asked to do is lost."""
        self._alive = False
        self._loaded.clear()
        for wait, timer in self._waits.items():
            timer.cancel()
            if not wait.done():
                wait.set_exception(WorkerDied("the emulated worker was killed"))
        self._waits.clear()

    async def start(self) -> None:
        """Start with no DNN loaded, and with the first of its latencies, like a new process."""
        self._alive, self._batches = True, 0

    async def load(self, dnn: int) -> None:
        """Load `dnn`."""
        if dnn not in self._loaded:
            await self._spend(self._load_ms)
            self._loaded.add(dnn)

    async def ping(self) -> None:
        """Answer."""
        if not self._alive:
            raise WorkerDied("the emulated worker is not alive")

    async def evict(self, dnn: int) -> None:
        """Free `dnn`."""
        if not self._alive:
            raise WorkerDied("the emulated worker is not alive")
        self._loaded.discard(dnn)

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Run a batch."""
        if self._alive and dnn not in self._loaded:
            raise DeviceError(f"DNN {dnn} is not loaded")
        number, self._batches = self._batches, self._batches + 1
        size = max(len(frames), pad_to or 0)
        duration_ms = self._model.duration_ms(dnn, size, self._seed, number)
        await self._spend(duration_ms + self._hand_over_ms())
        px, answer = self._input_px[dnn], self._answers.answer
        answers: tuple[Detections | str, ...] = tuple([answer(f.tag, px, f.px) for f in frames])
        return BatchResult(answers, 0.0, duration_ms, duration_ms)

    async def close(self) -> None:
        """End at once."""
        self.die()

    async def _spend(self, ms: float) -> None:
        if not self._alive:
            raise WorkerDied("the emulated worker is not alive")
        wait: asyncio.Future[None] = self._loop.create_future()
        self._waits[wait] = self._loop.call_later(ms / 1000, _end, wait)
        try:
            await wait
        finally:
            timer = self._waits.pop(wait, None)
            if timer is not None:
                timer.cancel()


def _end(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)
