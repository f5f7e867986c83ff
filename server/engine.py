"""The heart of the server: clients join, frames come in, each gets exactly one answer.

The engine queues, batches, drops, plans and swaps DNNs; workers only execute. It reads time from
its event loop alone, so that it runs unchanged in virtual time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Any

from jellyfish.admission import refusal
from jellyfish.errors import DeviceError, RejectedError
from jellyfish.messages import Frame
from jellyfish.overhead import LIMIT_SHARE, MARGIN_MS
from jellyfish.policy import Policy
from jellyfish.profile import Profile
from jellyfish.records import Outcome, Reason
from jellyfish.scheduling.problem import Plan
from server.clients import ClientHandle, Deliver, Pending, PutOut
from server.frame_path import FramePath
from server.gpu import Gpu
from server.planner import Planner
from server.planning import OnPlan, Planning
from server.settings import EngineConfig, Settings
from server.stalls import LoopStalls
from server.worker import Worker

log = logging.getLogger(__name__)

HealthListener = Callable[[bool], None]
OnLeft = Callable[[ClientHandle], None]


class ServerFull(RejectedError):  # noqa: N818 - it says what the server is
    """The server has as many clients as it takes."""


class NotServing(RejectedError):  # noqa: N818 - it says what the server is doing
    """No worker is alive, or the server is stopping."""


class Engine:
    """Serves clients on workers as the planner says.

    Args:
        profile: what the zoo's DNNs cost and earn on these workers.
        workers: one a GPU; the engine starts and closes them.
        planner: the scheduler; the engine closes it.
        policy: how to plan, queue, batch, drop and adapt.
        rng: the source of the planner's seeds.
        config: limits and intervals.
        on_health: told whenever the first worker comes up or the last one goes down.
        on_plan: told each scheduler run, for the record; nothing of it is kept here.
        on_left: told each client once it is gone and none of its frames is under way any more.
    """

    def __init__(
        self,
        profile: Profile,
        workers: Sequence[Worker],
        planner: Planner,
        policy: Policy,
        rng: Random,
        config: EngineConfig | None = None,
        on_health: HealthListener | None = None,
        on_plan: OnPlan | None = None,
        on_left: OnLeft | None = None,
    ) -> None:
        self._settings = Settings(profile=profile, policy=policy, config=config or EngineConfig())
        self._policy = policy
        self._on_health, self._on_left = on_health, on_left
        self._loop = asyncio.get_running_loop()
        self._stalls = LoopStalls()
        self._path = FramePath(self._settings, self)
        self.finish = self._path.finish  # for GPUs
        self._gpus = [
            Gpu(index, worker, self._settings, self._stalls, self)
            for index, worker in enumerate(workers)
        ]
        self._clients: dict[int, ClientHandle] = {}
        self._joined = 0  # clients, ever
        self._planning = Planning(
            planner,
            rng,
            self._settings,
            stalls=self._stalls,
            clients=self._clients,
            gpus=self._gpus,
            adopt=self._adopt,
            on_plan=on_plan,
        )
        self._stopping = False
        self._healthy = False

    # --- life

    async def start(self) -> None:
        """Start all workers, load and warm their DNNs; return when ready to serve.

        Where only some devices fail, the others serve; those are tried again and again.

        Raises:
            JellyfishError: no worker starts, one never will, or the planner does not work.
        """
        self._stalls.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._planning.warm())
                for gpu in self._gpus:
                    group.create_task(gpu.start())
            self._check_start()
        except (BaseExceptionGroup, DeviceError) as failure:
            await self.stop(0)
            if isinstance(failure, BaseExceptionGroup):
                raise failure.exceptions[0] from None
            raise
        self._planning.start()
        self._check_health()

    def _check_start(self) -> None:
        failed = [gpu for gpu in self._gpus if gpu.failure is not None]
        for gpu in failed:
            log.error("GPU %d does not serve yet: %s", gpu.index, gpu.failure)
        if failed and len(failed) == len(self._gpus):
            raise failed[0].failure or DeviceError("no worker starts")

    async def stop(self, grace_s: float) -> None:
        """Take no more frames, answer what waits within `grace_s`, and end workers and planner."""
        self._stopping = True
        self._check_health()
        for gpu in self._gpus:
            gpu.drain()
        await self._path.idle(grace_s)
        await self._planning.stop()
        await asyncio.gather(*(gpu.stop() for gpu in self._gpus))
        for pending in self._path.held():
            self.finish(pending, Outcome.ERROR, Reason.STOPPING)
        self._stalls.stop()

    @property
    def healthy(self) -> bool:
        """Whether a client that joins now can be served."""
        return not self._stopping and any(gpu.alive for gpu in self._gpus)

    @property
    def stopping(self) -> bool:
        """Whether it is ending."""
        return self._stopping

    @property
    def present(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    @property
    def settings(self) -> Settings:
        """Profile, policy and config."""
        return self._settings

    @property
    def clients(self) -> list[ClientHandle]:
        """Who is there now."""
        return list(self._clients.values())

    def state(self) -> dict[str, Any]:
        """Return the counts of every client that is there, and of the server."""
        return {
            "clients": [client.record() for client in self._clients.values()],
            "plans": self._planning.made,
            "worker_restarts": [gpu.restarts for gpu in self._gpus],
        }

    # --- clients

    def admit(self, fps: float, slo_ms: float) -> None:
        """Return if such a client could join now.

        Raises:
            RejectedError: no plan could ever serve it; the text says why.
            ServerFull: there are as many clients as the server takes.
            NotServing: no worker is alive, or the server is stopping.
        """
        config = self._settings.config
        if not self.healthy:
            raise NotServing(Reason.STOPPING if self._stopping else "no worker is alive")
        why = refusal(self._settings.profile, fps, slo_ms, config.wire_ms, MARGIN_MS)
        if why is not None:
            raise RejectedError(why)
        if len(self._clients) >= config.max_clients:
            raise ServerFull(f"the server takes {config.max_clients} clients and has them")

    def join(
        self,
        name: str,
        fps: float,
        slo_ms: float,
        deliver: Deliver,
        put_out: PutOut | None = None,
    ) -> ClientHandle:
        """Admit a client; what concerns its frames is given to `deliver`, which must not block.

        A client that the engine removes by itself, since it harms others, is told to `put_out`.

        Raises:
            RejectedError, ServerFull, NotServing: see `admit`.
        """
        self.admit(fps, slo_ms)
        client = ClientHandle(
            number=self._joined,
            name=name,
            fps=fps,
            slo_ms=slo_ms,
            deliver=deliver,
            joined_s=self._loop.time(),
            weight=self._policy.overhead_weight,
            window_s=self._policy.bandwidth_window_s,
            put_out=put_out,
        )
        self._clients[client.number] = client
        self._joined += 1
        self._clients_changed()
        return client

    def leave(self, client: ClientHandle) -> None:
        """Forget a client: it gets nothing any more, and its capacity goes to the others."""
        if client.gone:
            return
        client.gone = True
        del self._clients[client.number]
        if not client.unanswered:
            self.left(client)
        waiting = self._path.held(client)
        if client.gpu is not None:
            waiting += client.gpu.take_back(client)
        for pending in waiting:
            self.finish(pending, Outcome.DROPPED)
        client.gpu = None
        self._clients_changed()

    def put_out(self, client: ClientHandle, reason: str) -> None:
        """Remove a client that harms others."""
        if client.gone:
            return
        log.error("client %d (%r) is put out: %s", client.number, client.name, reason)
        self.leave(client)
        if client.put_out is not None:
            client.put_out(reason)

    def _clients_changed(self) -> None:
        shortest_ms = min((c.slo_ms for c in self._clients.values()), default=inf)
        for gpu in self._gpus:
            gpu.overhead.limit_ms = LIMIT_SHARE * shortest_ms
        self._planning.soon()

    def returned(self, client: ClientHandle) -> None:
        """Have a client planned for again that had been quiet."""
        if client.gpu is None:
            client.planned = False
            self._planning.soon()

    def left(self, client: ClientHandle) -> None:
        """Tell of a client that is gone for good: its counts are final."""
        if self._on_left is not None:
            self._on_left(client)

    def submit(self, client: ClientHandle, frame: Frame) -> None:
        """Take a frame: acknowledge it now, answer it once, later or now."""
        self._path.submit(client, frame)

    def refuse(self, client: ClientHandle, frame_id: int, reason: str) -> None:
        """Answer a frame that cannot be understood: an error, or one more than may be sent."""
        self._path.refuse(client, frame_id, reason)

    # --- planning

    def _adopt(self, plan: Plan, clients: list[ClientHandle], gpus: list[Gpu]) -> None:
        """Follow a plan: frames move with their clients, workers swap between two batches."""
        moving = self._path.held()
        for client in self._clients.values():
            if client.quiet(self._loop.time()) and client.gpu is not None:
                moving += client.gpu.take_back(client)
                client.gpu, client.planned = None, False
        for client, g in zip(clients, plan.clients, strict=True):
            gpu = None if g is None else gpus[g]
            lost = gpu is not None and not gpu.alive  # while the plan was made
            if client.gone or lost:
                continue
            if client.gpu is not None and client.gpu is not gpu:
                moving += client.gpu.take_back(client)
            client.gpu, client.planned = gpu, True
        for gpu, gpu_plan in zip(gpus, plan.gpus, strict=True):
            if gpu.alive:
                gpu.assign(gpu_plan, sum(c.fps for c in clients if c.gpu is gpu))
        for pending in moving:
            self._path.route(pending)

    # --- death and return of workers

    def gpu_down(self, gpu: Gpu, waiting: list[Pending]) -> None:
        """Have the clients of a GPU that is down move, with the frames that waited there."""
        for client in self._clients.values():
            if client.gpu is gpu:
                client.gpu, client.planned = None, False
        for pending in waiting:
            if self._policy.hold_new:
                self._path.route(pending)
            else:
                self.finish(pending, Outcome.ERROR, Reason.WORKER_DIED)
        self._check_health()
        self._planning.soon()

    def gpu_up(self) -> None:
        """Have a plan made for a GPU more."""
        for client in self._clients.values():
            client.planned = client.gpu is not None
        self._check_health()
        self._planning.soon()

    def _check_health(self) -> None:
        if self.healthy != self._healthy:
            self._healthy = self.healthy
            log.info("serving" if self._healthy else "not serving")
            if self._on_health is not None:
                self._on_health(self._healthy)
