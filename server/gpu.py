"""One GPU as the engine sees it: a worker, the queue before it, and the loop that feeds it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jellyfish.batching import choose, worthwhile_batch
from jellyfish.detections import Detections
from jellyfish.errors import DeviceError
from jellyfish.records import Outcome, Reason, Stages
from jellyfish.scheduling.problem import GpuPlan
from server.clients import ClientHandle, Pending
from server.dnn_cache import DnnCache
from server.queues import FrameQueue
from server.settings import Settings
from server.worker import BatchResult, Worker, WorkerDied, WorkerFrame

log = logging.getLogger(__name__)

WATCH_S = 0.25  # how often an idle worker is looked at
STEADY_S = 60.0  # a worker that lived this long starts with the shortest pause again
CLOSE_S = 2.0  # a worker that does not end within this is left to the operating system


@dataclass(frozen=True, slots=True)
class Ran:
    """Where and how a frame ran."""

    gpu: int
    dnn: int
    batch: int
    stages: Stages


class Finish(Protocol):
    """Gives a frame its one answer."""

    def __call__(
        self,
        pending: Pending,
        outcome: Outcome,
        reason: str = "",
        ran: Ran | None = None,
        detections: Detections | None = None,
    ) -> None:
        """Give `pending` its answer."""


class Gpu:
    """Feeds one worker, and starts it again when it has died.

    Args:
        index: number of the GPU.
        worker: its worker.
        settings: profile, policy and config.
        finish: gives a frame its answer.
        dispatched: told the hand-over time of each batch, there and back, in ms.
        went_down: called with the frames that waited when the worker died.
        came_up: called when it lives again.
    """

    def __init__(
        self,
        index: int,
        worker: Worker,
        settings: Settings,
        finish: Finish,
        dispatched: Callable[[float], None],
        went_down: Callable[[Gpu, list[Pending]], None],
        came_up: Callable[[], None],
    ) -> None:
        self.index = index
        self.plan: GpuPlan | None = None
        self._fps = 0.0  # mapped to it
        self.last_dnn = 0  # of the last plan in which it had something to do
        self.alive = False
        self.restarts = 0
        self._pause_s = settings.config.restart_s[0]
        self._worker = worker
        self._settings = settings
        self._policy = settings.policy
        self._finish = finish
        self._dispatched = dispatched
        self._went_down = went_down
        self._came_up = came_up
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._draining = False
        self._task: asyncio.Task[None] | None = None
        config = settings.config
        self.cache = DnnCache(
            worker,
            settings.profile.dnns,
            config.cached_dnns,
            config.load_timeout_s,
            self._dnns_changed,
        )
        self._queue = FrameQueue(
            self._policy.queue_order, self._expire if self._policy.drop_waiting else None
        )

    # --- what the engine calls

    async def start(self) -> None:
        """Start the worker and load its first DNNs; serve from then on.

        Raises:
            JellyfishError: the worker does not start or a DNN cannot be loaded.
        """
        await self._start_worker()
        await self.cache.load_all()
        self.alive = True
        self._task = self._loop.create_task(self._supervise(), name=f"gpu-{self.index}")

    def put(self, pending: Pending) -> None:
        """Queue a frame."""
        self._queue.put(pending)
        self._wake.set()

    def assign(self, plan: GpuPlan | None, fps: float) -> None:
        """Follow a new plan, which maps clients with `fps` frames/s in all to this GPU.

        None leaves the GPU idle with what it has loaded.
        """
        self.plan, self._fps = plan, fps
        if plan is not None:
            self.last_dnn = plan.dnn
            self.cache.want(plan.dnn)
        self._dnns_changed()

    def take_back(self, client: ClientHandle) -> list[Pending]:
        """Remove and return the waiting frames of `client`."""
        return self._queue.remove(client)

    def drain(self) -> None:
        """Run what waits without waiting for more."""
        self._draining = True
        self._wake.set()

    async def stop(self) -> None:
        """Answer what is left, and end the worker."""
        self._draining = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.alive = False
        for pending in self._queue.clear():
            self._finish(pending, Outcome.ERROR, Reason.STOPPING)
        await self._close_worker()

    # --- serving

    async def _serve(self) -> None:
        while True:
            self._wake.clear()
            batch, dnn, wait_s = self._next_batch()
            if batch:
                await self._run(batch, dnn)
            else:
                await self._sleep(wait_s)

    def _next_batch(self) -> tuple[list[Pending], int, float | None]:
        dnn, size = self._dnn_and_batch()
        if dnn is None or not len(self._queue):
            return [], 0, None
        now = self._loop.time()
        latency_ms = self._settings.latency_ms[dnn]
        choice = choose(
            [(p.deadline_s - now) * 1000 for p in self._queue],
            latency_ms,
            size,
            self._policy,
            worthwhile=worthwhile_batch(
                latency_ms, size, self._fps, self._policy, draining=self._draining
            ),
        )
        picked = self._queue.pick(choice.drop + choice.take)  # in one go: positions move
        dropped, batch = picked[: len(choice.drop)], picked[len(choice.drop) :]
        for pending in dropped:
            self._expire(pending)
        return batch, dnn, None if choice.wait_ms is None else choice.wait_ms / 1000

    def _dnn_and_batch(self) -> tuple[int | None, int]:
        plan = self.plan
        if plan is None:
            return None, 0
        dnn = self.cache.choose(plan.dnn)
        if dnn is None or dnn <= plan.dnn:
            return dnn, plan.batch
        latency = self._settings.latency_ms
        limit_ms = latency[plan.dnn][plan.batch - 1]
        batch = sum(1 for ms in latency[dnn][: plan.batch] if ms <= limit_ms)
        return dnn, max(1, batch)  # a larger DNN stands in: within the planned time if it can

    async def _sleep(self, wait_s: float | None) -> None:
        timer = None if wait_s is None else self._loop.call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _run(self, batch: list[Pending], dnn: int) -> None:
        started_s = self._loop.time()
        self.cache.running = dnn
        try:
            result = await self._call_worker(batch, dnn)
        except WorkerDied:
            self._fail(batch, Reason.WORKER_DIED)
            raise
        except DeviceError as error:
            log.error("GPU %d: a batch failed: %s", self.index, error)
            self._fail(batch, str(error))
        except BaseException:  # cancelled: the worker was seen to be dead, or the server stops
            self._fail(batch, Reason.STOPPING if self._draining else Reason.WORKER_DIED)
            raise
        else:
            self._answer(batch, dnn, started_s, result)
        finally:
            self.cache.batch_done()

    async def _call_worker(self, batch: list[Pending], dnn: int) -> BatchResult:
        frames = [WorkerFrame(p.frame.tag, p.frame.image, p.frame.px) for p in batch]
        pad_to = self.plan.batch if self.plan and self._policy.pad_batches else None
        timeout_s = self._settings.config.run_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._worker.run(dnn, frames, pad_to)
        except TimeoutError:
            raise WorkerDied(f"no answer within {timeout_s:g} s") from None
        if len(result.answers) != len(batch):
            raise DeviceError(f"{len(result.answers)} answers to a batch of {len(batch)}")
        return result

    def _answer(
        self, batch: list[Pending], dnn: int, started_s: float, result: BatchResult
    ) -> None:
        elapsed_ms = (self._loop.time() - started_s) * 1000
        inside_ms = max(result.busy_ms, result.decode_ms + result.execute_ms)
        dispatch_ms = max(0.0, elapsed_ms - inside_ms)
        self._dispatched(dispatch_ms)
        for pending, answer in zip(batch, result.answers, strict=True):
            wait_ms = (started_s - pending.received_s) * 1000
            stages = Stages(dispatch_ms, result.decode_ms, wait_ms, result.execute_ms)
            ran = Ran(self.index, dnn, len(batch), stages)
            if isinstance(answer, str):
                reason = f"{Reason.BAD_IMAGE}: {answer}"
                self._finish(pending, Outcome.ERROR, reason, ran)
            else:
                self._finish(pending, Outcome.OK, "", ran, answer)

    def _fail(self, batch: list[Pending], reason: str) -> None:
        for pending in batch:
            self._finish(pending, Outcome.ERROR, reason)

    def _expire(self, pending: Pending) -> None:
        self._finish(pending, Outcome.DROPPED, Reason.TOO_LATE)

    def _dnns_changed(self) -> None:
        """Reckon anew from when on a frame is hopeless: alone, on what would run it now."""
        dnn, _ = self._dnn_and_batch()
        if dnn is not None:
            latency_ms = self._settings.latency_ms[dnn][0]
            self._queue.set_lead((latency_ms - self._policy.drop_tolerance_ms) / 1000)
        self._wake.set()

    # --- life and death of the worker

    async def _supervise(self) -> None:
        while True:
            born_s = self._loop.time()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._serve())
                    group.create_task(self.cache.keep_wanted())
                    group.create_task(self._watch())
            except* WorkerDied as died:
                log.error("GPU %d: worker died: %s", self.index, died.exceptions[0])
            except* Exception:
                log.exception("GPU %d: serving failed; the worker is started anew", self.index)
            self._down()
            if self._draining:  # and perhaps cancelled, which a failing task group forgets
                return
            await self._revive(steady=self._loop.time() - born_s > STEADY_S)

    async def _watch(self) -> None:
        while self._worker.alive:
            await asyncio.sleep(WATCH_S)
        raise WorkerDied("its process has ended")

    def _down(self) -> None:
        self.alive = False
        self.plan = None
        self.cache.forget()
        self._went_down(self, self._queue.clear())

    async def _revive(self, steady: bool) -> None:
        first_s, longest_s = self._settings.config.restart_s
        if steady:
            self._pause_s = first_s
        while not self.alive:
            await self._close_worker()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(longest_s, 2 * self._pause_s)
            try:
                await self._start_worker()
                await self.cache.load_first()
            except Exception as error:  # whatever it is, the GPU must not be given up
                log.error(
                    "GPU %d: no new worker, next try in %g s: %r", self.index, self._pause_s, error
                )
            else:
                self.alive = True
        self.restarts += 1
        log.warning("GPU %d: worker started anew", self.index)
        self._came_up()

    async def _start_worker(self) -> None:
        timeout_s = self._settings.config.load_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._worker.start()
        except TimeoutError:
            raise WorkerDied(f"it did not start within {timeout_s:g} s") from None

    async def _close_worker(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._worker.close()
        except Exception as error:  # it is being given up anyway
            log.error("GPU %d: worker does not close: %r", self.index, error)
