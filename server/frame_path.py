"""The path of a frame through the server: taken or refused, queued, answered once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from jellyfish.adaptation import server_px
from jellyfish.budget import BITS_PER_BYTE, network_ms
from jellyfish.detections import Detections
from jellyfish.messages import Ack, Answer, Frame
from jellyfish.overhead import FIRST_MS, MARGIN_MS
from jellyfish.records import Outcome, Reason, Stages
from server.clients import ClientHandle, Pending
from server.gpu import Ran
from server.queues import FrameQueue
from server.settings import Settings

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What the path asks and tells the engine that it belongs to."""

    @property
    def healthy(self) -> bool:
        """Whether some worker serves."""

    @property
    def stopping(self) -> bool:
        """Whether the server ends."""

    @property
    def present(self) -> int:
        """How many clients there are."""

    def returned(self, client: ClientHandle) -> None:
        """Have a client planned for again that had been quiet."""

    def leave(self, client: ClientHandle) -> None:
        """Forget a client."""

    def left(self, client: ClientHandle) -> None:
        """Take note of a client that is gone, with nothing of it under way any more."""


class FramePath:
    """Takes frames, holds those whose clients no plan has seen yet, and answers each once.

    Args:
        settings: profile, policy and config.
        owner: the engine.
    """

    def __init__(self, settings: Settings, owner: Owner) -> None:
        self._settings, self._policy, self._owner = settings, settings.policy, owner
        self._loop = asyncio.get_running_loop()
        self._held = FrameQueue("edf", self._too_late)  # until a plan has seen their clients
        latency_ms = settings.latency_ms[0][0]
        self._held.set_lead((latency_ms - self._policy.drop_tolerance_ms) / 1000)
        self._arrivals = 0
        self._waiting = 0  # frames without an answer
        self._held_bytes = 0  # theirs
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self, limit_s: float) -> None:
        """Wait until every frame is answered, for `limit_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    def held(self, client: ClientHandle | None = None) -> list[Pending]:
        """Remove and return the frames that are held, of all clients or of one."""
        return self._held.clear() if client is None else self._held.remove(client)

    def submit(self, client: ClientHandle, frame: Frame) -> None:
        """Take a frame: acknowledge it now, answer it once, later or now."""
        if client.gone:
            return
        now = self._loop.time()
        client.counts.received += 1
        if client.quiet(now):
            self._owner.returned(client)
        client.heard_s = now
        device_ms = frame.device_ms if self._policy.count_device else 0.0
        client.saw(frame, device_ms)
        deadline_s = now + self._left_ms(client, frame, device_ms) / 1000
        held_bytes = len(frame.image) + len(frame.tag)
        pending = Pending(client, frame, now, deadline_s, self._arrivals, held_bytes)
        self._arrivals += 1
        refused = self._refusal(pending)
        client.unanswered += 1
        client.held_bytes += held_bytes
        self._waiting += 1
        self._held_bytes += held_bytes
        self._idle.clear()
        ack = Ack(frame.id, (self._loop.time() - now) * 1000)
        if refused is None and client.gpu is not None:
            client.gpu.put(pending)  # first: a worker that is free has it while the client is told
            self._tell(client, ack)
            return
        self._tell(client, ack)
        if refused is not None or client.gone:
            self.finish(pending, *(refused or (Outcome.REJECTED, "")))
        else:
            self.route(pending)

    def refuse(self, client: ClientHandle, frame_id: int, reason: str) -> None:
        """Answer a frame that cannot be understood: an error, or one more than may be sent."""
        if client.gone:
            return
        client.counts.received += 1
        outcome, refused = Outcome.ERROR, client.refusal(self._loop.time())
        if refused is not None:
            outcome, reason = Outcome.REJECTED, refused
        client.answered(outcome, 0)
        answer = Answer(id=frame_id, outcome=outcome, reason=reason, next_px=self._px(client))
        self._tell(client, answer)

    def _refusal(self, pending: Pending) -> tuple[Outcome, str] | None:
        """Return what a frame is answered at once, if it is not taken; the cheapest test first."""
        client, settings = pending.client, self._settings
        why = Reason.STOPPING if self._owner.stopping else client.refusal(pending.received_s)
        if why is not None:
            return Outcome.REJECTED, why
        size, clients = pending.held_bytes, self._owner.present
        if settings.limits.full(size, client.held_bytes, self._held_bytes, clients):
            return Outcome.REJECTED, Reason.BYTES_LIMIT
        image, decoded = pending.frame.image, settings.config.check_images
        fault = settings.limits.image_fault(image, decoded)
        return None if fault is None else (Outcome.ERROR, f"{Reason.BAD_IMAGE}: {fault}")

    def _left_ms(self, client: ClientHandle, frame: Frame, device_ms: float) -> float:
        """Return in how many ms a batch with this frame must be done, for an answer in time."""
        bits = BITS_PER_BYTE * (len(frame.image) + client.response_bytes)
        wire_ms = self._settings.config.wire_ms
        network = network_ms(bits, client.kbps_of(frame), wire_ms)
        return client.slo_ms - device_ms - network - self._dispatch_ms(client)

    def _dispatch_ms(self, client: ClientHandle) -> float:
        gpu = client.gpu
        return FIRST_MS if gpu is None else gpu.overhead.dispatch_ms(self._loop.time())

    def route(self, pending: Pending) -> None:
        """Queue a frame where its client is served, hold it, or answer why it is not served."""
        client = pending.client
        if client.gpu is not None:
            client.gpu.put(pending)
        elif not self._owner.healthy and not self._owner.stopping:
            self.finish(pending, Outcome.ERROR, Reason.WORKER_DIED)
        elif not client.planned and self._policy.hold_new:
            self._held.put(pending)
        else:
            self.finish(pending, Outcome.DROPPED, Reason.NOT_MAPPED)

    def _too_late(self, pending: Pending) -> None:
        self.finish(pending, Outcome.DROPPED, Reason.TOO_LATE)

    def finish(
        self,
        pending: Pending,
        outcome: Outcome,
        reason: str = "",
        ran: Ran | None = None,
        detections: Detections | None = None,
    ) -> None:
        """Give `pending` its one answer."""
        client = pending.client
        client.unanswered -= 1
        held_bytes = pending.held_bytes
        client.held_bytes -= held_bytes
        self._waiting -= 1
        self._held_bytes -= held_bytes
        if not self._waiting:
            self._idle.set()
        if client.gone:
            client.counts.abandoned += 1
            if not client.unanswered:
                self._owner.left(client)
            return
        client.answered(outcome, 0 if detections is None else len(detections))
        received_ms = (self._loop.time() - pending.received_s) * 1000
        answer = Answer(
            id=pending.frame.id,
            outcome=outcome,
            reason=reason,
            next_px=self._px(client),
            dnn_px=self._settings.input_px[ran.dnn] if ran else 0,
            gpu=ran.gpu if ran else -1,
            batch=ran.batch if ran else 0,
            server_ms=received_ms,
            stages=ran.stages if ran else Stages(wait_ms=received_ms),
            detections=Detections.none() if detections is None else detections,
        )
        self._tell(client, answer)

    def _tell(self, client: ClientHandle, event: Ack | Answer) -> None:
        if client.gone:
            return
        try:
            client.deliver(event)
        except Exception:  # one client's trouble must not become another's
            log.exception("client %s (%d) cannot be told; it is out", client.name, client.number)
            self._owner.leave(client)

    def _px(self, client: ClientHandle) -> int:
        """Return the size that the client should send next."""
        settings = self._settings
        plan = client.gpu.plan if client.gpu is not None else None
        if plan is None:
            return settings.input_px[0]
        if not self._policy.server_steps_down:
            return settings.input_px[plan.dnn]
        overhead_ms = self._dispatch_ms(client) + MARGIN_MS
        return server_px(
            input_px=settings.input_px,
            frame_bytes=settings.reckoned_bytes,
            dnn=plan.dnn,
            batch_ms=settings.latency_ms[plan.dnn][plan.batch - 1],
            spare_ms=settings.slo_share * client.slo_ms - client.device_ms - overhead_ms,
            bandwidth_kbps=client.bandwidth.kbps,
            fps=client.fps,
            wire_ms=settings.config.wire_ms,
            response_bytes=client.response_bytes,
        )
