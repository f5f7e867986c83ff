"""The network in memory: one client's uplink and downlink to an engine in the same event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from client.transport import Received
from jellyfish.charges import NOTHING, Charge, derived_seed
from jellyfish.errors import RunError
from jellyfish.messages import Answer, Event, Frame, Registration
from jellyfish.trace import Trace
from server.clients import DETECTION_BYTES, HEADER_BYTES, ClientHandle
from server.engine import Engine
from server.seats import Peer, Seats, SeatStream, UnknownToken

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

    Attributes:
        seats: where clients sit; each is a peer of its own.
    """

    def __init__(self, engine: Engine, frame_ms: Callable[[], float] = float) -> None:
        self.engine = engine
        numbers = count()  # tokens are as good as random ones among links
        self.seats = Seats(engine, engine.settings.config.max_clients, lambda: str(next(numbers)))
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
    """One client's way to a virtual server (see `client.transport.Transport`).

    It can be cut and healed like a network: what is under way meanwhile arrives after healing, as
    TCP has it, unless the client has connected anew by then.

    Args:
        server: the other end.
        config: what the link is like.
        trace: rate of the uplink; None for no limit.
        origin_s: when the trace begins, on the loop's clock.
        seed: of what is drawn of the times in `config`.

    Attributes:
        server: the other end; another one from the next connection on, where a test says so.
    """

    servers = 1

    def __init__(
        self,
        server: VirtualServer,
        config: LinkConfig,
        trace: Trace | None,
        origin_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.server = server
        self._delay_s = config.delay_ms / 1000
        self._transport_ms = config.transport_ms.draws(derived_seed(seed, "transport"))
        self._answer_ms = config.answer_ms.draws(derived_seed(seed, "answer"))
        self._arrived_s = self._received_s = 0.0  # nothing overtakes, either way
        self._uplink = Uplink(trace, origin_s, self._delay_s, config.queue_limit_bytes)
        self._down_s_per_byte = 8 / (config.downlink_mbps * 1e6)
        self._down_free_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._peer = Peer("")
        self._token = ""
        self._up_is_cut = self._down_is_cut = False
        self._held_up: list[Frame] = []  # under way while that way is cut
        self._held_down: list[Received] = []
        self._stream: SeatStream | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget the connection of before: nothing of it arrives any more."""
        self._connection = object()
        self._inbox: deque[Received] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._ended = ""  # why
        self._held_up.clear()
        self._held_down.clear()

    async def connect(self) -> None:
        """Reach the server: there and back. Does not return while the link is cut."""
        self._begin()
        if self._up_is_cut or self._down_is_cut:
            await self._loop.create_future()
        await asyncio.sleep(2 * self._delay_s)

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join; see `Transport.register`."""
        self._peer = Peer(name)
        await asyncio.sleep(self._delay_s)
        joined = self.server.seats.register(self._peer, name, fps, slo_ms)
        self._token = joined.token
        self._open()
        await asyncio.sleep(self._delay_s)
        return joined

    async def resume(self) -> bool:
        """Take the seat of before; see `Transport.resume`."""
        await asyncio.sleep(self._delay_s)
        try:
            self._open()
        except UnknownToken:
            return False
        finally:
            await asyncio.sleep(self._delay_s)
        return True

    def send(self, frame: Frame) -> None:
        """Put a frame on the uplink once the device has made it; see `Transport.send`."""
        size = len(frame.image) + FRAME_HEADER_BYTES
        # Virtual time stands still while a client works: it sends later than the clock says.
        arrival_s = self._uplink.send(self._loop.time() + frame.device_ms / 1000, size)
        if arrival_s is not None:
            arrival_s = max(self._arrived_s, arrival_s + self._transport_ms() / 1000)
            self._arrived_s = arrival_s
            self._loop.call_at(arrival_s, self._arrive, frame, self._connection)

    async def receive(self) -> Received:
        """Return what the server says next; see `Transport.receive`."""
        while not self._inbox:
            if self._ended:
                raise RunError(f"the server has ended the stream: {self._ended}")
            self._reader = self._loop.create_future()
            await self._reader
        return self._inbox.popleft()

    async def close(self) -> None:
        """Leave; see `Transport.close`."""
        if self._token and not self._up_is_cut:
            await asyncio.sleep(self._delay_s)
            with suppress(UnknownToken):
                self.server.seats.unregister(self._token, self._peer)

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass any more, without a word, up to the server or down or both."""
        self._up_is_cut |= up
        self._down_is_cut |= down

    def heal(self) -> None:
        """Undo `cut`."""
        self._up_is_cut = self._down_is_cut = False
        frames, self._held_up = self._held_up, []
        for frame in frames:
            self._arrive(frame, self._connection)
        events, self._held_down = self._held_down, []
        for received in events:
            self._receive(received, self._connection)

    def reset(self) -> None:
        """Break the connection; both sides learn of it now."""
        if self._stream is not None:
            self._stream.close()
        self._end("the connection was reset", self._connection)

    # The server's side

    def _open(self) -> None:
        connection = self._connection

        def wake() -> None:
            if stream.ending is not None:
                why = stream.ending[1]
                self._loop.call_later(self._delay_s, self._end, why, connection)
                stream.close()
            while (event := stream.unread()) is not None:
                stream.told()
                self._tell(event, connection)

        stream = self.server.seats.open(self._token, self._peer, wake)
        self._stream = stream
        wake()

    def _arrive(self, frame: Frame, connection: object) -> None:
        stream = self._stream
        if connection is not self._connection or stream is None:
            return
        if self._up_is_cut:
            self._held_up.append(frame)
            return
        stream.heard()
        if stream.ending is None:
            self.server.take(stream.client, frame)

    def _tell(self, event: Event, connection: object) -> None:
        now_s = self._loop.time()
        if isinstance(event, Answer):
            size = HEADER_BYTES + DETECTION_BYTES * len(event.detections)
        else:
            size = SMALL_BYTES
        self._down_free_s = max(self._down_free_s, now_s) + size * self._down_s_per_byte
        arrival_s = self._down_free_s + self._delay_s
        if isinstance(event, Answer):
            arrival_s += self.server.answered_s(self._answer_ms()) - now_s
        self._received_s = arrival_s = max(self._received_s, arrival_s)
        self._loop.call_at(arrival_s, self._receive, Received(event, size), connection)

    # The client's side

    def _receive(self, received: Received, connection: object) -> None:
        if connection is not self._connection:
            return
        if self._down_is_cut:
            self._held_down.append(received)
            return
        self._inbox.append(received)
        self._wake()

    def _end(self, why: str, connection: object) -> None:
        if connection is self._connection and not self._down_is_cut:
            self._ended = why
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
