"""The service over real gRPC in this very process, with an emulated worker behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from jellyfish.errors import ProtocolError
from jellyfish.messages import Ack, Answer, Frame, Heartbeat
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.convert import event_from_wire, frame_to_wire, registration_from_wire
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub, add_JellyfishServicer_to_server
from jellyfish.records import Outcome, Reason
from server import service
from server.engine import Engine
from server.process import options
from server.settings import EngineConfig
from tests.engine_world import LoopWorker, engine_of, profile

EOF = grpc.aio.EOF


class Client:
    """A client that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub: Any = JellyfishStub(self.channel)
        self.token = ""
        self.call: Any = None

    async def join(self, fps: float = 10, slo_ms: float = 500) -> Client:
        request = pb.RegisterRequest(name="a", fps=fps, slo_ms=slo_ms)
        self.token = registration_from_wire(await self.stub.Register(request)).token
        self.call = self.open(self.token)
        return self

    def open(self, token: str) -> Any:
        return self.stub.Stream(metadata=(("jellyfish-token", token),))

    async def send(self, frame_id: int, image: bytes = b"jpeg", px: int = 128) -> None:
        await self.call.write(frame_to_wire(Frame(frame_id, b"0:1", image, px, 50_000.0, 1.0)))

    async def answer(self) -> Answer:
        """Return the next answer; acknowledgements and heartbeats pass by."""
        while True:
            message = await self.call.read()
            assert message is not EOF, "the stream has ended"
            event = event_from_wire(message)
            if isinstance(event, Answer):
                return event

    async def asks(self, frame_id: int, image: bytes = b"jpeg", px: int = 128) -> Answer:
        await self.send(frame_id, image, px)
        return await self.answer()

    async def ends(self) -> grpc.StatusCode:
        """Read until the server has ended the stream; return how."""
        with suppress(grpc.aio.AioRpcError):
            while await self.call.read() is not EOF:
                pass
        return await self.call.code()  # type: ignore[no-any-return]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[int, Engine]]:
    engine = await engine_of([LoopWorker(profile(), load_s=0)], config=EngineConfig(**settings))
    server = grpc.aio.server(options=options(engine.settings.limits))
    behind = service.Service(engine)
    add_JellyfishServicer_to_server(behind, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, engine
    finally:
        await engine.stop(1)
        await behind.close(1)
        await server.stop(1)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    one = Client(port)
    try:
        yield one
    finally:
        await one.channel.close()


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_frame_is_acknowledged_then_answered_and_silence_is_filled() -> None:
    async with serving() as (port, _), client(port) as one:
        await one.join()
        await one.send(7)
        events = []
        while len(events) < 3:
            events.append(event_from_wire(await one.call.read()))
        ack, answer, heartbeat = events
        assert isinstance(ack, Ack)
        assert ack.id == 7
        assert isinstance(answer, Answer)
        assert (answer.id, answer.outcome, answer.gpu, answer.batch) == (7, Outcome.OK, 0, 1)
        assert len(answer.detections) == 1
        assert answer.stages.execute_ms > 0
        assert answer.server_ms >= answer.stages.execute_ms
        assert isinstance(heartbeat, Heartbeat)


async def test_hostile_frames_are_answered_and_harm_no_one_else() -> None:
    async with serving() as (port, engine), client(port) as good, client(port) as bad:
        await good.join()
        await bad.join()
        assert (await bad.asks(1, px=0)).outcome is Outcome.ERROR
        no_jpeg = await bad.asks(2, image=b"no jpeg")
        assert (no_jpeg.outcome, no_jpeg.reason) == (Outcome.ERROR, "bad image: no JPEG")
        await bad.call.write(pb.Frame(id=3, px=128, device_ms=float("nan")))
        assert "device_ms" in (await bad.answer()).reason
        await bad.call.write(pb.Frame(id=4, px=128, bandwidth_kbps=float("-inf"), image=b"j"))
        assert (await bad.answer()).outcome is Outcome.OK
        for kbps, device_ms in [(1e-300, 0.0), (5e4, 1e308)]:  # absurd, but numbers
            await bad.call.write(
                pb.Frame(id=6, px=128, bandwidth_kbps=kbps, device_ms=device_ms, image=b"j")
            )
            assert (await bad.answer()).outcome is Outcome.DROPPED
        limits = engine.settings.limits
        too_heavy = await bad.asks(5, image=bytes(limits.frame_bytes + 1000))
        assert too_heavy.reason.startswith("bad image: ")
        with pytest.raises(grpc.aio.AioRpcError):  # what is no frame at all ends this one stream
            await bad.asks(6, image=bytes(limits.message_bytes))
        assert await bad.ends() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert f"vs. {limits.message_bytes}" in await bad.call.details()
        assert (await good.asks(1)).outcome is Outcome.OK


async def test_bytes_that_are_no_message_end_their_own_stream() -> None:
    async with serving() as (port, _), client(port) as good, client(port) as bad:
        await good.join()
        await bad.join()
        raw = bad.channel.stream_stream("/jellyfish.v1.Jellyfish/Stream")
        await bad.call.done_writing()
        await bad.ends()
        await bad.join()
        bad.call.cancel()
        await bad.join()
        call = raw(metadata=(("jellyfish-token", bad.token),))
        await call.write(b"\xff\xff\xff\xff")
        assert await call.code() is not grpc.StatusCode.OK
        assert (await good.asks(1)).outcome is Outcome.OK


async def test_tokens_are_what_admits_and_removes() -> None:
    async with serving() as (port, _), client(port) as one, client(port) as thief:
        await one.join()
        assert (await one.asks(1)).outcome is Outcome.OK
        unknown = thief.open("00" * 16)
        assert await unknown.code() is grpc.StatusCode.UNAUTHENTICATED
        leave = thief.stub.Unregister(pb.UnregisterRequest(token="guess"))
        assert await code_of(leave) is grpc.StatusCode.UNAUTHENTICATED
        second = thief.open(one.token)
        assert await second.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (await one.asks(2)).outcome is Outcome.OK
        await one.stub.Unregister(pb.UnregisterRequest(token=one.token))
        assert await one.ends() is grpc.StatusCode.OK
        assert await one.open(one.token).code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("fps", "slo_ms"), [(0, 100), (10, 0), (10, 3), (float("nan"), 100)])
async def test_what_cannot_be_served_is_refused_at_once(fps: float, slo_ms: float) -> None:
    async with serving() as (port, _), client(port) as one:
        request = pb.RegisterRequest(name="a", fps=fps, slo_ms=slo_ms)
        assert await code_of(one.stub.Register(request)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_server_and_one_that_stops_say_which() -> None:
    async with serving(max_clients=1) as (port, engine), client(port) as one, client(port) as two:
        await one.join()
        request = pb.RegisterRequest(name="b", fps=10, slo_ms=500)
        assert await code_of(two.stub.Register(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await engine.stop(1)
        assert await code_of(two.stub.Register(request)) is grpc.StatusCode.UNAVAILABLE
        assert (await one.asks(1)).reason == Reason.STOPPING


async def test_whoever_vanishes_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SILENCE_S", 0.5)
    async with serving(max_clients=1) as (port, engine), client(port) as silent:
        async with client(port) as killed:
            await killed.join()
            await killed.asks(1)
        await until(lambda: not engine.clients)  # its connection is closed
        await silent.stub.Register(pb.RegisterRequest(name="never streams", fps=10, slo_ms=500))
        await until(lambda: not engine.clients)
        await silent.join(fps=100, slo_ms=100)
        assert await silent.ends() is grpc.StatusCode.OK
        assert not engine.clients
        counts = engine.summary()["clients"]
        assert counts["a"]["ok"] == 1


async def test_the_end_of_the_stream_waits_for_what_is_under_way() -> None:
    async with serving() as (port, engine), client(port) as one:
        await one.join(fps=100)
        for frame in range(5):
            await one.send(frame)
        await one.call.done_writing()
        answers = [await one.answer() for _ in range(5)]
        assert sorted(a.id for a in answers) == list(range(5))
        assert await one.ends() is grpc.StatusCode.OK
        await until(lambda: not engine.clients)


async def test_a_client_that_does_not_read_is_put_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNREAD_LIMIT", 4)
    connection = service.Connection()
    for number in range(4):
        connection.deliver(Ack(number, 0.0))
    with pytest.raises(ProtocolError, match="4 messages unread"):
        connection.deliver(Ack(4, 0.0))
    assert connection.ended.is_set()
