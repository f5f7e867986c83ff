"""The network in memory: one client's uplink and downlink to an engine in the same event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from client.transport import Received
from jellyfish.charges import NOTHING, Charge, derived_seed
from jellyfish.errors import RunError
from jellyfish.messages import Answer, Event, Frame, Heartbeat, Registration
from jellyfish.trace import Trace
from server.clients import DETECTION_BYTES, HEADER_BYTES, ClientHandle
from server.engine import Engine
from server.settings import HEARTBEAT_S, SILENCE_S

FRAME_HEADER_BYTES = 90  # beside the image: what gRPC and HTTP/2 add, tag and numbers included
SMALL_BYTES = 30  # an acknowledgement or a heartbeat


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """What a link is like.

    Args:
        delay_ms: propagation, each way.
        downlink_mbps: rate of the downlink.
        queue_limit_bytes: the uplink loses a frame that would make more than this wait; None for
            an endless queue.
        transport_ms, answer_ms: what the software at both ends adds to a frame's way there, and to
            its answer's back, beside what the link takes. The answers of one batch go out one after
            another.
    """

    delay_ms: float = 0.0
    downlink_mbps: float = 100.0
    queue_limit_bytes: float | None = None
    transport_ms: Charge = NOTHING
    answer_ms: Charge = NOTHING


class Uplink:
    """A FIFO whose rate follows a trace.

    Args:
        trace: its rate, from `origin_s` on; None for no limit.
        origin_s: when the trace begins, on the loop's clock.
        delay_s: propagation.
        limit_bytes: see `LinkConfig.queue_limit_bytes`.
    """

    def __init__(
        self, trace: Trace | None, origin_s: float, delay_s: float, limit_bytes: float | None
    ) -> None:
        self._trace, self._origin_s, self._delay_s = trace, origin_s, delay_s
        self._limit_bytes = limit_bytes
        self._free_s = 0.0  # since the origin: when the last byte taken so far has left
        self._queue: deque[tuple[float, int]] = deque()  # departure, bytes; only under a limit
        self._queued_bytes = 0

    def send(self, at_s: float, size: int) -> float | None:
        """Take `size` bytes at `at_s`; return when they arrive, or None if they are lost."""
        trace = self._trace
        if trace is None:
            return at_s + self._delay_s
        since_s = at_s - self._origin_s
        if self._limit_bytes is not None and not self._room(since_s, size):
            return None
        self._free_s = trace.departure(max(since_s, self._free_s), size * 8)
        if self._limit_bytes is not None:
            self._queue.append((self._free_s, size))
            self._queued_bytes += size
        return self._origin_s + self._free_s + self._delay_s

    def _room(self, since_s: float, size: int) -> bool:
        while self._queue and self._queue[0][0] <= since_s:
            self._queued_bytes -= self._queue.popleft()[1]
        assert self._limit_bytes is not None
        return not self._queue or self._queued_bytes + size <= self._limit_bytes


class VirtualServer:
    """The server around an engine: its CPU takes one frame, and one answer, after another.

    Args:
        engine: who serves.
        frame_ms: gives the CPU time that a frame costs before the engine sees it.
    """

    def __init__(self, engine: Engine, frame_ms: Callable[[], float] = float) -> None:
        self.engine = engine
        self._frame_ms = frame_ms
        self._free_s = 0.0
        self._answering_s = self._answered_s = 0.0  # the present batch: since when, until when
        self._loop = asyncio.get_running_loop()

    def answered_s(self, answer_ms: float) -> float:
        """Return when an answer is out that is given now and takes `answer_ms` of the CPU.

        It waits for those that were given at the same time. Not for any others: with the clients'
        part of the work in it, a charge says little of how many answers a server has time for.
        """
        now_s = self._loop.time()
        if now_s > self._answering_s:
            self._answering_s = self._answered_s = now_s
        self._answered_s += answer_ms / 1000
        return self._answered_s

    def take(self, client: ClientHandle, frame: Frame) -> None:
        """Have the engine get `frame` once the CPU is through with it."""
        now_s = self._loop.time()
        self._free_s = max(self._free_s, now_s) + self._frame_ms() / 1000
        if self._free_s > now_s:
            self._loop.call_at(self._free_s, self.engine.submit, client, frame)
        else:
            self.engine.submit(client, frame)


class Link:
    """One client's connection to a virtual server (see `client.transport.Transport`).

    Args:
        server: the other end.
        config: what the link is like.
        trace: rate of the uplink; None for no limit.
        origin_s: when the trace begins, on the loop's clock.
        seed: of what is drawn of the times in `config`.
    """

    def __init__(
        self,
        server: VirtualServer,
        config: LinkConfig,
        trace: Trace | None,
        origin_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._server = server
        self._delay_s = config.delay_ms / 1000
        self._transport_ms = config.transport_ms.draws(derived_seed(seed, "transport"))
        self._answer_ms = config.answer_ms.draws(derived_seed(seed, "answer"))
        self._arrived_s = self._received_s = 0.0  # nothing overtakes, either way
        self._uplink = Uplink(trace, origin_s, self._delay_s, config.queue_limit_bytes)
        self._down_s_per_byte = 8 / (config.downlink_mbps * 1e6)
        self._down_free_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._client: ClientHandle | None = None
        self._inbox: deque[Received] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._cut = self._ended = False
        self._heard_s = self._told_s = 0.0  # the server from the client, the client from the server
        self._silence_s = SILENCE_S

    async def connect(self) -> None:
        """Reach the server: there and back."""
        await asyncio.sleep(2 * self._delay_s)

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join; see `Transport.register`."""
        await asyncio.sleep(self._delay_s)
        self._client = self._server.engine.join(name, fps, slo_ms, self._deliver)
        self._heard_s = self._told_s = self._loop.time()
        self._silence_s = max(SILENCE_S, 3 / fps)
        self._loop.call_later(HEARTBEAT_S, self._beat)
        await asyncio.sleep(self._delay_s)
        settings = self._server.engine.settings
        return Registration(
            token="",
            first_px=settings.input_px[0],
            input_px=settings.input_px,
            frame_bytes=settings.frame_bytes,
            heartbeat_s=HEARTBEAT_S,
        )

    def send(self, frame: Frame) -> None:
        """Put a frame on the uplink once the device has made it; see `Transport.send`."""
        size = len(frame.image) + FRAME_HEADER_BYTES
        # Virtual time stands still while a client works: it sends later than the clock says.
        arrival_s = self._uplink.send(self._loop.time() + frame.device_ms / 1000, size)
        if arrival_s is not None and not self._cut:
            arrival_s = max(self._arrived_s, arrival_s + self._transport_ms() / 1000)
            self._arrived_s = arrival_s
            self._loop.call_at(arrival_s, self._arrive, frame)

    async def receive(self) -> Received:
        """Return what the server says next; see `Transport.receive`."""
        while not self._inbox:
            if self._ended:
                raise RunError("the server has ended the stream")
            self._reader = self._loop.create_future()
            await self._reader
        return self._inbox.popleft()

    async def close(self) -> None:
        """Leave; see `Transport.close`."""
        if self._client is not None and not self._cut:
            await asyncio.sleep(self._delay_s)
            self._server.engine.leave(self._client)

    def cut(self) -> None:
        """Break the connection without a word: nothing passes any more, either way."""
        self._cut = True

    # The server's side

    def _arrive(self, frame: Frame) -> None:
        self._heard_s = self._loop.time()
        if self._client is not None and not self._cut:
            self._server.take(self._client, frame)

    def _deliver(self, event: Event) -> None:
        self._told_s = now_s = self._loop.time()
        if isinstance(event, Answer):
            size = HEADER_BYTES + DETECTION_BYTES * len(event.detections)
        else:
            size = SMALL_BYTES
        self._down_free_s = max(self._down_free_s, now_s) + size * self._down_s_per_byte
        arrival_s = self._down_free_s + self._delay_s
        if isinstance(event, Answer):
            arrival_s += self._server.answered_s(self._answer_ms()) - now_s
        self._received_s = arrival_s = max(self._received_s, arrival_s)
        self._loop.call_at(arrival_s, self._receive, Received(event, size))

    def _beat(self) -> None:
        client = self._client
        if client is None or client.gone:
            return
        now_s = self._loop.time()
        if now_s - self._heard_s >= self._silence_s:
            self._server.engine.leave(client)
            self._loop.call_later(self._delay_s, self._end)
            return
        if now_s - self._told_s >= HEARTBEAT_S:
            self._deliver(Heartbeat())
        self._loop.call_at(max(self._told_s, now_s - HEARTBEAT_S / 2) + HEARTBEAT_S, self._beat)

    # The client's side

    def _receive(self, received: Received) -> None:
        if self._cut:
            return
        self._inbox.append(received)
        self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
