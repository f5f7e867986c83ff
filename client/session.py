"""One client's stream: open-loop ticks, what was sent, what came back, one row a tick.

It runs on any asyncio loop, in real or virtual time, and reads time from `loop.time()` alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from math import ceil, isnan, nan
from random import Random
from typing import Any

from client.connection import Connection
from client.rows import OnRow, Rows, fill
from client.source import Source, SourceFrame
from client.transport import Received, Transport
from jellyfish.backoff import Outlook, backoff, hopeless
from jellyfish.errors import JellyfishError
from jellyfish.messages import Ack, Answer, Frame, Registration
from jellyfish.policy import JELLYFISH, Policy
from jellyfish.records import FrameRow, Outcome, Reason
from jellyfish.uplink import ServerTime, Uplink

SILENCE_S = 2.5  # a server says something every half second
MIN_DRAIN_S = 1.0
PROBE_S = 0.5  # a client that skips frames sends one this long after the last nevertheless


def expected_ticks(stream_s: float, fps: float) -> int:
    """Return how many frames are captured in [0, stream_s) at `fps`, the first at 0."""
    return ceil(stream_s * fps - 1e-9)  # 1.1 s at 10 fps are 11, whatever rounding makes of it


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What a client asks for and how it behaves.

    Args:
        client: its number in rows.
        name: what it calls itself to the server.
        fps: ticks per second.
        slo_ms: from a tick to its detections back on the device.
        stream_s: ticks fall in [0, stream_s).
        in_flight_limit: with so many frames unanswered, a tick is refused.
        wire_ms: latency of the wire one way, for the bandwidth estimate.
        silence_s: a server that says nothing for longer is gone.
        give_up_s: the session ends when it had no connection for so long; 0: when it has lost the
            first one; None: it tries until the stream is over.
        policy: its rules for clients: estimator, back-off, what not to send.
        encode_ms: gives what making a frame is said to take, on top of what it takes on the loop's
            clock: virtual time stands still meanwhile. The transport sends so much later.
    """

    client: int
    name: str
    fps: float
    slo_ms: float
    stream_s: float
    in_flight_limit: int = 32
    wire_ms: float = 0.5
    silence_s: float = SILENCE_S
    give_up_s: float | None = None
    policy: Policy = JELLYFISH
    encode_ms: Callable[[], float] = float  # nothing


"""Takes a row that is final, and what came back for it."""


class Session:
    """Streams a source to a server, once; afterwards `rows` and `detections` tell what happened.

    A connection that is lost is replaced: the seat of before is taken up again where the server
    still has it, and the client registers anew where it does not.

    Args:
        config: see there.
        transport: the way to the server.
        source: the frames; started already.
        rng: draws how long to wait before another try; None for one seeded by the client's number.
        on_row: takes each row as soon as its frame has an outcome, and what came back for it in
            time or not; None: `rows` and `detections` keep them.

    Attributes:
        rows: one a tick, in order; empty where `on_row` takes them.
        detections: what came back, in time or not, by tick; empty where `on_row` takes it.
        gone: why there was no connection at the end; empty if there was one.
        register_ms: how long joining took.
    """

    def __init__(
        self,
        config: SessionConfig,
        transport: Transport,
        source: Source,
        rng: Random | None = None,
        on_row: OnRow | None = None,
    ) -> None:
        self._config, self._transport, self._source = config, transport, source
        rng = rng or Random(config.client)
        self._connection = Connection(transport, self._register, rng, config.give_up_s)
        self._uplink = Uplink(config.policy.estimator, config.wire_ms)
        self._server_time = ServerTime(config.fps)
        self._backoff = backoff(config.policy.backoff)
        self._rows = Rows(on_row)
        self._in_flight: dict[int, FrameRow] = {}
        self._astray: dict[int, FrameRow] = {}  # under way when the last connection was lost
        self._told_px = 0
        self._heard_s = 0.0  # when the server said something last
        self._sent_s = 0.0  # when a frame was sent last
        self._sizes: tuple[tuple[int, ...], tuple[float, ...]] = ((), ())
        self._stopped = asyncio.Event()
        self._answered = asyncio.Event()
        self.rows, self.detections = self._rows.kept, self._rows.detections
        self.gone = ""
        self.register_ms = nan

    async def run(self) -> None:
        """Join, stream, wait for what is under way, leave.

        A server that goes away during the stream is no exception: see `gone` and the rows.

        Raises:
            RejectedError: the server refuses the client; where there are several, each does.
            RunError: none can be reached.
            DataError: the source fails.
        """
        try:
            await self._until_first(self._join(), self._stopped.wait())
            if not self._stopped.is_set():
                await self._until_first(
                    self._stream(), self._stay_connected(), self._stopped.wait()
                )
        finally:
            self._settle()
            await self._transport.close()

    @property
    def reconnects(self) -> int:
        """How often a lost connection was replaced."""
        return max(0, self._connection.count - 1)

    def stop(self) -> None:
        """End the stream now; `run` returns soon after."""
        self._stopped.set()

    def counts(self) -> dict[str, int]:
        """Return the number of frames with an outcome, by outcome."""
        return self._rows.counts()

    def so_far(self) -> dict[str, int]:
        """Return how many frames have an outcome by now, and how many of them are not `ok`."""
        return self._rows.so_far()

    async def _join(self) -> None:
        begin = _now()
        await self._connection.first()
        self.register_ms = (_now() - begin) * 1000

    async def _register(self) -> None:
        config = self._config
        self._take(await self._transport.register(config.name, config.fps, config.slo_ms))
        self._astray.clear()  # their answers went with the seat of before
        self._pass_on()

    async def _stay_connected(self) -> None:
        """Listen, and replace the connection when it is lost, until it is time to give up."""
        while True:
            await self._until_first(self._listen(), self._watch())
            if not await self._connection.again():
                self.gone = self._connection.lost
                return

    def _lose(self, why: str) -> None:
        """Take note that the connection is lost, and with it what is under way."""
        if not self._connection.up:
            return
        self._connection.lose(why)
        for row in self._in_flight.values():
            row.outcome, row.reason = Outcome.LOST, f"{Reason.CONNECTION_LOST}: {why}"
        self._astray, self._in_flight = self._in_flight, {}
        self._uplink = Uplink(self._config.policy.estimator, self._config.wire_ms)

    def _take(self, joined: Registration) -> None:
        self._told_px = joined.first_px
        self._sizes = joined.input_px, joined.frame_bytes

    async def _until_first(self, *ways: Coroutine[Any, Any, object]) -> None:
        """Run all of `ways` until one has ended; cancel the others; pass on what it raises."""
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    # Up

    async def _stream(self) -> None:
        """Capture and send until the stream is over and all is answered."""
        start = _now()
        for k in range(expected_ticks(self._config.stream_s, self._config.fps)):
            capture_s = start + k / self._config.fps
            await asyncio.sleep(max(0.0, capture_s - _now()))
            self._tick(k, capture_s)
            self._pass_on()
        await self._drain()
        if not self._connection.up:
            self.gone = self._connection.lost

    async def _drain(self) -> None:
        """Wait until all frames are answered, but not for ever."""
        patience_s = max(2 * self._config.slo_ms / 1000, MIN_DRAIN_S)
        try:
            async with asyncio.timeout(patience_s):
                while self._in_flight or self._astray:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            return  # what is still missing is lost

    def _tick(self, k: int, capture_s: float) -> None:
        config = self._config
        row = FrameRow(
            client=config.client,
            frame=k,
            clip_frame=self._source.clip_frame(k),
            fps=config.fps,
            slo_ms=config.slo_ms,
            capture_s=capture_s,
            bandwidth_est_kbps=self._uplink.kbps(_now()),
        )
        self._rows.add(row)
        if not self._connection.up:
            row.outcome, row.reason = Outcome.REJECTED, Reason.NO_CONNECTION
            return
        if len(self._in_flight) >= config.in_flight_limit:
            row.outcome, row.reason = Outcome.REJECTED, Reason.IN_FLIGHT_LIMIT
            return
        encode_ms = config.encode_ms()
        if config.policy.skip_hopeless and self._cannot_arrive(capture_s, encode_ms):
            row.outcome, row.reason = Outcome.REJECTED, Reason.NO_TIME
            return
        px = self._backoff(self._outlook(capture_s, encode_ms, config.policy.bandwidth_margin))
        frame = self._source.frame(k, px)
        if frame is None:
            row.outcome, row.reason = Outcome.REJECTED, Reason.SOURCE_SLOW
            return
        self._send(row, frame, px, encode_ms)

    def _outlook(self, capture_s: float, encode_ms: float, margin: float = 0.0) -> Outlook:
        """Return what is known about a frame that is sent as soon as it is encoded.

        With `margin`, so many mean changes of the bandwidth are kept in hand.
        """
        config = self._config
        sent_s = _now() + encode_ms / 1000
        kbps = self._uplink.cautious_kbps(sent_s, margin)
        server_ms = self._server_time.quantile(config.policy.server_quantile)
        device_ms = (sent_s - capture_s) * 1000
        return Outlook(
            told_px=self._told_px,
            input_px=self._sizes[0],
            frame_bytes=self._sizes[1],
            kbps=kbps,
            fps=config.fps,
            slo_ms=config.slo_ms,
            ahead_ms=self._uplink.ahead_ms(sent_s, kbps),
            device_ms=device_ms,
            server_ms=config.slo_ms / 2 if server_ms is None else server_ms,
        )

    def _cannot_arrive(self, capture_s: float, encode_ms: float) -> bool:
        """Whether even the smallest frame is too late, however quick the server is.

        An idle uplink is always tried, and another now and then: nothing else would tell that it
        has recovered, or that what it is thought to carry was lost.
        """
        quickest_ms = self._server_time.quantile(0.0)
        if quickest_ms is None or not self._uplink.busy or _now() - self._sent_s >= PROBE_S:
            return False
        return hopeless(self._outlook(capture_s, encode_ms), quickest_ms)

    def _send(self, row: FrameRow, frame: SourceFrame, px: int, encode_ms: float) -> None:
        row.sent_s = _now() + encode_ms / 1000
        self._sent_s = row.sent_s
        row.px_sent, row.bytes_up = px, len(frame.image)
        self._in_flight[row.frame] = row
        self._uplink.sent(row.frame, row.bytes_up, px, row.sent_s)
        self._transport.send(
            Frame(
                id=row.frame,
                tag=frame.tag,
                image=frame.image,
                px=px,
                bandwidth_kbps=row.bandwidth_est_kbps,
                device_ms=(row.sent_s - row.capture_s) * 1000,
            )
        )

    # Down

    async def _listen(self) -> None:
        """Take what the server says until the connection is lost."""
        try:
            while True:
                self._receive(await self._transport.receive())
        except JellyfishError as error:
            self._lose(str(error))

    async def _watch(self) -> None:
        """Wait until the server has been silent for too long.

        One timer that looks back, and not one for each thing that the server says.
        """
        self._heard_s, silence_s = _now(), self._config.silence_s
        while (left_s := self._heard_s + silence_s - _now()) > 0:
            await asyncio.sleep(left_s)
        self._lose(f"the server has been silent for {silence_s} s")

    def _receive(self, received: Received) -> None:
        self._heard_s = _now()
        event = received.event
        if isinstance(event, Ack):
            self._acknowledge(event)
        elif isinstance(event, Answer):
            self._answer(event, received.size)

    def _acknowledge(self, ack: Ack) -> None:
        row = self._in_flight.get(ack.id)
        if row is None or not isnan(row.acked_s):
            return  # answered, or acknowledged before
        row.acked_s = _now()
        self._uplink.acknowledged(ack.id, row.acked_s, ack.server_ms)

    def _answer(self, answer: Answer, size: int) -> None:
        row = self._in_flight.pop(answer.id, None)
        astray = row is None
        if row is None and (row := self._astray.pop(answer.id, None)) is None:
            return
        self._answered.set()
        self._told_px = answer.next_px
        fill(row, answer, size, _now())
        if astray:
            pass  # its times tell of the outage
        elif answer.outcome is Outcome.OK:
            self._server_time.took(answer.server_ms)
        elif answer.outcome is Outcome.DROPPED and answer.reason == Reason.TOO_LATE:
            elsewhere_ms = row.e2e_ms - answer.server_ms
            self._server_time.took(row.slo_ms - elsewhere_ms)  # it would have taken longer
        if row.outcome in (Outcome.OK, Outcome.LATE):
            self.detections[row.frame] = answer.detections
        self._pass_on()

    def _settle(self) -> None:
        """Say of each frame still under way that it is lost."""
        for row in self._in_flight.values():
            row.outcome, row.reason = Outcome.LOST, Reason.NO_ANSWER
        self._in_flight.clear()
        self._astray.clear()
        self._pass_on()

    def _pass_on(self) -> None:
        self._rows.pass_on(self._in_flight, self._astray)


def _now() -> float:
    return asyncio.get_running_loop().time()
