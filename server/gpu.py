"""One GPU as the engine sees it: a worker, the queue before it, and the loop that feeds it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from jellyfish.batching import choose, worthwhile_batch
from jellyfish.detections import Detections
from jellyfish.errors import ConfigError, DataError, DeviceError
from jellyfish.records import Outcome, Reason, Stages
from jellyfish.scheduling.problem import GpuPlan
from server.clients import ClientHandle, Pending
from server.dnn_cache import DnnCache
from server.lifecycle import WorkerLife
from server.queues import FrameQueue
from server.settings import Settings
from server.stalls import LoopStalls
from server.throttled_log import ThrottledLog
from server.worker import Worker, WorkerDied, WorkerFrame
from server.worker_calls import Executed, WorkerCalls


@dataclass(frozen=True, slots=True)
class Ran:
    """Where and how a frame ran."""

    gpu: int
    dnn: int
    batch: int
    stages: Stages


class Owner(Protocol):
    """What a GPU tells the engine that it belongs to."""

    def finish(
        self,
        pending: Pending,
        outcome: Outcome,
        reason: str = "",
        ran: Ran | None = None,
        detections: Detections | None = None,
    ) -> None:
        """Give `pending` its one answer."""

    def gpu_down(self, gpu: Gpu, waiting: list[Pending]) -> None:
        """Take back the frames that waited when the worker died."""

    def gpu_up(self) -> None:
        """Take note that a worker lives again."""

    def put_out(self, client: ClientHandle, reason: str) -> None:
        """Remove a client that harms others."""


class Gpu:
    """Feeds one worker, and starts it again when it has died.

    Args:
        index: number of the GPU.
        worker: its worker.
        settings: profile, policy and config.
        stalls: of the loop.
        owner: who is told what becomes of frames and worker.
    """

    def __init__(
        self, index: int, worker: Worker, settings: Settings, stalls: LoopStalls, owner: Owner
    ) -> None:
        self.index = index
        self.plan: GpuPlan | None = None
        self._fps = 0.0  # mapped to it
        self.last_dnn = 0  # of the last plan in which it had something to do
        self.alive = False
        self.failure: DeviceError | None = None  # of its start
        self._settings = settings
        self._policy = settings.policy
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._draining = False
        self._probe_wanted = False
        self._task: asyncio.Task[None] | None = None
        config = settings.config
        self._log = ThrottledLog(f"GPU {index}")
        self._calls = WorkerCalls(worker, settings, stalls)
        self.overhead = self._calls.overhead
        self.cache = DnnCache(
            self._calls, settings.profile.dnns, config.cached_dnns, self._dnns_changed
        )
        self._life = WorkerLife(index, self._calls, self.cache, config)
        self._queue = FrameQueue(
            self._policy.queue_order, self._expire if self._policy.drop_waiting else None
        )

    @property
    def restarts(self) -> int:
        """How often its worker was started again."""
        return self._life.restarts

    # --- what the engine calls

    async def start(self) -> None:
        """Start the worker and load its first DNNs; serve from then on.

        A device that fails is tried again and again; `failure` tells why it is not there yet.

        Raises:
            ConfigError, DataError: the worker will never start like this.
        """
        try:
            await self._life.begin()
        except (ConfigError, DataError):
            raise
        except DeviceError as error:
            self.failure = error
        else:
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

    def probe(self) -> None:
        """Have the worker run a blank frame if nobody's waits: its estimate is old."""
        self._probe_wanted = True
        self._wake.set()

    @property
    def idle_s(self) -> float:
        """For how long it has run nothing."""
        return 0.0 if self._calls.busy else self._loop.time() - self._calls.ran_s

    async def stop(self) -> None:
        """Answer what is left, and end the worker."""
        self._draining = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.alive = False
        for pending in self._queue.clear():
            self._owner.finish(pending, Outcome.ERROR, Reason.STOPPING)
        await self._life.close()

    # --- serving

    async def _serve(self) -> None:
        while True:
            self._wake.clear()
            batch, dnn, wait_s = self._next_batch()
            if batch:
                await self._run(batch, dnn)
            elif self._probe_wanted:
                await self._probe()
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
        take = self._without_suspects(choice.take)
        picked = self._queue.pick((*choice.drop, *take))  # in one go: positions move
        dropped, batch = picked[: len(choice.drop)], picked[len(choice.drop) :]
        for pending in dropped:
            self._expire(pending)
        return batch, dnn, None if choice.wait_ms is None else choice.wait_ms / 1000

    def _without_suspects(self, take: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of the queue's positions `take` that may run together."""
        clients = [self._queue[i].client for i in take]
        if not any(client.suspicion for client in clients):
            return take
        first = clients[0]
        return tuple(
            i
            for i, client in zip(take, clients, strict=True)
            if client is first or not (first.suspicion or client.suspicion)
        )

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

    async def _probe(self) -> None:
        self._probe_wanted = False
        dnn = self.cache.choose(self.last_dnn)
        if dnn is None:
            return
        self.cache.running = dnn
        try:
            await self._calls.probe(dnn)
        except WorkerDied:
            raise
        except DeviceError as error:
            self._log.tell(f"a probe failed: {error}")
        finally:
            self.cache.batch_done()

    async def _run(self, batch: list[Pending], dnn: int) -> None:
        started_s = self._loop.time()
        self.cache.running = dnn
        frames = [WorkerFrame(p.frame.tag, p.frame.image, p.frame.px) for p in batch]
        pad_to = self.plan.batch if self.plan and self._policy.pad_batches else None
        try:
            executed = await self._calls.run(dnn, frames, pad_to)
        except WorkerDied:
            self._died_with(batch)
            raise
        except DeviceError as error:
            self._log.tell(f"a batch failed: {error}")
            self._fail(batch, str(error))
        except BaseException:  # cancelled: the worker was seen to be dead, or the server stops
            if self._draining:
                self._fail(batch, Reason.STOPPING)
            else:
                self._died_with(batch)
            raise
        else:
            self._answer(batch, dnn, started_s, executed)
        finally:
            self.cache.batch_done()

    def _answer(self, batch: list[Pending], dnn: int, started_s: float, executed: Executed) -> None:
        result = executed.result
        for pending, answer in zip(batch, result.answers, strict=True):
            pending.client.suspicion.survived(1)
            wait_ms = (started_s - pending.received_s) * 1000
            stages = Stages(executed.dispatch_ms, result.decode_ms, wait_ms, result.execute_ms)
            ran = Ran(self.index, dnn, len(batch), stages)
            if isinstance(answer, str):
                reason = f"{Reason.BAD_IMAGE}: {answer}"
                self._owner.finish(pending, Outcome.ERROR, reason, ran)
            else:
                self._owner.finish(pending, Outcome.OK, "", ran, answer)

    def _died_with(self, batch: list[Pending]) -> None:
        """Answer the frames that the worker died with; suspect, or put out, their clients."""
        self._fail(batch, Reason.WORKER_DIED)
        clients = list({p.client.number: p.client for p in batch}.values())
        alone = len(clients) == 1 and bool(clients[0].suspicion)
        for client in clients:
            client.suspicion.worker_died(self._loop.time())
        if alone:
            self._owner.put_out(clients[0], Reason.KILLS_WORKERS)

    def _fail(self, batch: list[Pending], reason: str) -> None:
        for pending in batch:
            self._owner.finish(pending, Outcome.ERROR, reason)

    def _expire(self, pending: Pending) -> None:
        self._owner.finish(pending, Outcome.DROPPED, Reason.TOO_LATE)

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
            if self.alive:
                await self._life.live(self._serve())
                self._down()
            if self._draining:  # and perhaps cancelled, which a failing task group forgets
                return
            await self._life.revive()
            self.alive, self.failure = True, None
            self._owner.gpu_up()

    def _down(self) -> None:
        self.alive = False
        self.plan = None
        self._probe_wanted = False
        self.cache.forget()
        self._owner.gpu_down(self, self._queue.clear())
