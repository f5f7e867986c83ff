"""Calls to one worker, each with its limit: who does not answer in time counts as dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from jellyfish.errors import DeviceError
from jellyfish.overhead import Overhead
from server.probe import PROBE
from server.settings import Settings
from server.stalls import LoopStalls
from server.worker import BatchResult, Worker, WorkerDied, WorkerFrame

PING_TIMEOUT_S = 1.0
CLOSE_S = 2.0  # a worker that does not end within this is left to the operating system
ERRORS_IN_A_ROW = 3  # batches: then the device itself is taken to be broken


@dataclass(frozen=True, slots=True)
class Executed:
    """A batch that has run, and what the way to the worker and back took beside it."""

    result: BatchResult
    dispatch_ms: float


class WorkerCalls:
    """What the engine asks of a worker, within limits that leave out stalls of its own loop.

    Args:
        worker: who is asked.
        settings: profile, policy and config.
        stalls: of the loop.

    Attributes:
        overhead: estimate of the hand-over, from the batches that ran.
        busy: whether a batch runs.
        ran_s: when the last batch ended.
    """

    def __init__(self, worker: Worker, settings: Settings, stalls: LoopStalls) -> None:
        self._worker, self._settings, self._stalls = worker, settings, stalls
        self._loop = asyncio.get_running_loop()
        self._errors = 0  # in a row
        policy = settings.policy
        self.overhead = Overhead(policy.overhead_weight, policy.overhead_tail)
        self.busy = False
        self.ran_s = self._loop.time()

    @property
    def alive(self) -> bool:
        """Whether the worker's process runs."""
        return self._worker.alive

    async def start(self) -> None:
        """Start the worker, or start it again.

        Raises:
            JellyfishError: it does not start; the text says why.
        """
        self._errors = 0
        timeout_s = self._settings.config.load_timeout_s
        try:
            async with self._stalls.timeout(timeout_s):
                await self._worker.start()
        except TimeoutError:
            raise WorkerDied(f"it did not start within {timeout_s:g} s") from None

    async def close(self) -> None:
        """End the worker.

        Raises:
            TimeoutError: it does not end.
        """
        async with asyncio.timeout(CLOSE_S):
            await self._worker.close()

    async def load(self, dnn: int) -> None:
        """Load a DNN.

        Raises:
            WorkerDied: the worker died, or took too long.
            DeviceError: the DNN cannot be loaded.
        """
        timeout_s = self._settings.config.load_timeout_s
        try:
            async with self._stalls.timeout(timeout_s):
                await self._worker.load(dnn)
        except TimeoutError:
            raise WorkerDied(f"loading DNN {dnn} took over {timeout_s:g} s") from None

    async def evict(self, dnn: int) -> None:
        """Evict a DNN.

        Raises:
            WorkerDied: the worker died, or took too long.
        """
        timeout_s = self._settings.config.load_timeout_s  # it waits for loads asked for before
        try:
            async with self._stalls.timeout(timeout_s):
                await self._worker.evict(dnn)
        except TimeoutError:
            raise WorkerDied(f"evicting DNN {dnn} took over {timeout_s:g} s") from None

    async def ping(self) -> None:
        """Ask whether the worker still answers; not while a batch runs, which has its own limit.

        Raises:
            WorkerDied: it does not.
        """
        try:
            async with self._stalls.timeout(PING_TIMEOUT_S):
                await self._worker.ping()
        except TimeoutError:
            raise WorkerDied(f"no answer to a ping within {PING_TIMEOUT_S:g} s") from None

    async def probe(self, dnn: int) -> None:
        """Run a blank frame: whether a client's would be served, and how long the way takes now.

        Raises:
            WorkerDied: the worker died, or took too long.
            DeviceError: the device failed.
        """
        await self.run(dnn, [PROBE])

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> Executed:
        """Run a batch.

        Raises:
            WorkerDied: the worker died, took too long, or fails batch after batch.
            DeviceError: the device failed, or its answer makes no sense.
        """
        self.busy = True
        try:
            executed = await self._run(dnn, frames, pad_to)
        except WorkerDied:
            raise
        except DeviceError as error:
            self._errors += 1
            if self._errors >= ERRORS_IN_A_ROW:
                raise WorkerDied(f"{self._errors} batches in a row failed: {error}") from error
            raise
        finally:
            self.busy, self.ran_s = False, self._loop.time()
        self._errors = 0
        return executed

    async def _run(self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None) -> Executed:
        size, weight = max(len(frames), pad_to or 0), sum(len(frame.image) for frame in frames)
        timeout_s = self._settings.run_timeout_s(dnn, size, weight)
        begin_s, stalled_s = self._loop.time(), self._stalls.total_s
        try:
            async with self._stalls.timeout(timeout_s):
                result = await self._worker.run(dnn, frames, pad_to)
        except TimeoutError:
            raise WorkerDied(f"no answer to a batch within {timeout_s:g} s") from None
        now_s = self._loop.time()
        inside_ms = max(result.busy_ms, result.decode_ms + result.execute_ms)
        outside_s = now_s - begin_s - (self._stalls.total_s - stalled_s)
        dispatch_ms = max(0.0, outside_s * 1000 - inside_ms)
        self.overhead.dispatched(dispatch_ms, now_s)
        return Executed(result, dispatch_ms)
