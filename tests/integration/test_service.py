"""The service over real gRPC in this very process, with an emulated worker behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from jellyfish.messages import Ack, Answer, Frame, Heartbeat
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.convert import event_from_wire, frame_to_wire, registration_from_wire
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub, add_JellyfishServicer_to_server
from jellyfish.records import Outcome, Reason
from server import seats, service
from server.engine import Engine
from server.process import options
from server.settings import EngineConfig
from tests.engine_world import LoopWorker, engine_of, profile

EOF = grpc.aio.EOF


class Client:
    """A client that says exactly what it is told to."""

    def __init__(self, port: int, window: int | None = None) -> None:
        options = [] if window is None else [("grpc.http2.lookahead_bytes", window)]
        options += [] if window is None else [("grpc.http2.bdp_probe", 0)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
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
        return await ended(self.call)


async def ended(call: Any) -> grpc.StatusCode:
    """Read a stream until the server has ended it; return how."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not EOF:
            pass
    return await call.code()  # type: ignore[no-any-return]


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
async def client(port: int, window: int | None = None) -> AsyncIterator[Client]:
    one = Client(port, window)
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
        while len(events) < 4:
            events.append(event_from_wire(await one.call.read()))
        opened, ack, answer, heartbeat = events
        assert isinstance(opened, Heartbeat)  # at once: the client has a seat
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
        assert await ended(call) is not grpc.StatusCode.OK
        assert (await good.asks(1)).outcome is Outcome.OK


async def test_tokens_are_what_admits_and_removes() -> None:
    async with serving() as (port, _), client(port) as one, client(port) as thief:
        await one.join()
        assert (await one.asks(1)).outcome is Outcome.OK
        unknown = thief.open("00" * 16)
        assert await unknown.code() is grpc.StatusCode.UNAUTHENTICATED
        leave = thief.stub.Unregister(pb.UnregisterRequest(token="guess"))
        assert await code_of(leave) is grpc.StatusCode.UNAUTHENTICATED
        old, one.call = one.call, one.open(one.token)  # it had lost its connection, say
        assert (await one.asks(2)).outcome is Outcome.OK
        assert await ended(old) is grpc.StatusCode.ABORTED
        assert "another stream" in await old.details()
        await one.stub.Unregister(pb.UnregisterRequest(token=one.token))
        assert await one.ends() is grpc.StatusCode.OK
        assert await one.open(one.token).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_that_is_taken_over_while_it_opens_ends_with_the_reason() -> None:
    """Its first message is under way at that moment, beside which gRPC aborts no call."""
    async with serving() as (port, _), client(port) as one:
        for _ in range(20):
            await one.join()
            other = one.open(one.token)
            async with asyncio.timeout(10):
                ways = [asyncio.create_task(ended(call)) for call in (one.call, other)]
                done, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                assert {way.result() for way in done} == {grpc.StatusCode.ABORTED}
                await one.stub.Unregister(pb.UnregisterRequest(token=one.token))
                await asyncio.wait(left)


@pytest.mark.parametrize(
    ("fps", "slo_ms"),
    [
        *[(0, 100), (10, 0), (10, 3), (float("nan"), 100), (1e-9, 1000), (5e-324, 1000)],
        *[(1, 1.79e308), (1, 60_001), (1001, 500), (0.09, 1000), (1e-9, 1.79e308)],
    ],
)
async def test_what_cannot_be_served_is_refused_at_once(fps: float, slo_ms: float) -> None:
    async with serving() as (port, _), client(port) as one:
        request = pb.RegisterRequest(name="a", fps=fps, slo_ms=slo_ms)
        assert await code_of(one.stub.Register(request)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_server_and_one_that_stops_say_which() -> None:
    async with serving(max_clients=1) as (port, engine), client(port) as one, client(port) as two:
        await one.join()
        await until(lambda: engine.clients)
        request = pb.RegisterRequest(name="b", fps=10, slo_ms=500)
        assert await code_of(two.stub.Register(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        await engine.stop(1)
        assert await code_of(two.stub.Register(request)) is grpc.StatusCode.UNAVAILABLE
        assert (await one.asks(1)).reason == Reason.STOPPING


async def test_the_last_seat_goes_to_the_first_stream() -> None:
    async with serving(max_clients=1) as (port, engine), client(port) as one, client(port) as two:
        request = pb.RegisterRequest(name="b", fps=10, slo_ms=500)
        tokens = [(await one.stub.Register(request)).token for _ in range(3)]
        assert not engine.clients  # registrations take no seats
        assert await one.open(tokens[0]).code() is grpc.StatusCode.UNAUTHENTICATED  # gave way
        await two.join()
        assert (await two.asks(1)).outcome is Outcome.OK
        assert await code_of(two.stub.Register(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_whoever_vanishes_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "SILENCE_S", (0.5, 0.5))
    monkeypatch.setattr(seats, "RESUME_S", 0.5)
    async with serving(max_clients=1) as (port, engine), client(port) as silent:
        async with client(port) as killed:
            await killed.join()
            await killed.asks(1)
        await until(lambda: not engine.clients)  # its connection is closed
        await silent.join(fps=100, slo_ms=100)
        assert await silent.ends() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "was silent for 0.5 s" in await silent.call.details()
        assert not engine.clients
        counts = engine.summary()["clients"]
        assert counts["a"]["ok"] == 1


async def test_who_comes_back_in_time_has_its_seat_and_its_answers() -> None:
    async with serving(max_clients=1) as (port, engine), client(port) as one:
        await one.join(slo_ms=2000)
        await one.asks(0)
        (seated,) = engine.clients
        await one.send(1)
        one.call.cancel()  # the answer is not read
        await until(lambda: seated.counts.ok == 2)
        one.call = one.open(one.token)
        assert isinstance(event_from_wire(await one.call.read()), Heartbeat)
        assert (await one.asks(2)).id in {1, 2}  # what was on the wire is lost with it
        assert engine.clients == [seated]


async def test_who_is_put_out_is_told_why() -> None:
    async with serving() as (port, engine), asyncio.timeout(10):
        client = await Client(port).join()
        await client.asks(0)
        engine.put_out(engine.clients[0], Reason.KILLS_WORKERS)
        assert await client.ends() is grpc.StatusCode.ABORTED
        assert await client.call.details() == Reason.KILLS_WORKERS


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


async def flood(one: Client, frames: int) -> None:
    """Send so many frames that nobody reads an answer to, until the server has had enough."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for number in range(frames):
            await one.send(number, image=b"", px=0)


async def test_who_does_not_read_is_put_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "UNREAD_LIMIT", 64)
    async with (
        serving(max_clients=4) as (port, engine),
        client(port, 65_536) as bad,
        client(port) as good,
    ):
        calls = []
        for _ in range(2):  # as many as one address may have
            await bad.join()
            await flood(bad, 4000)
            await until(lambda: not engine.clients)
            calls.append(bad.call)
        assert not any(call.done() for call in calls)  # gRPC cannot end them, they are counted
        refused = bad.stub.Register(pb.RegisterRequest(name="a", fps=10, slo_ms=500))
        assert await code_of(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED
        bad.call = calls.pop()
        assert await bad.ends() is grpc.StatusCode.RESOURCE_EXHAUSTED  # once it reads at last
        assert await bad.call.details() == "left 64 messages unread"
        await good.join()
        assert (await good.asks(1)).outcome is Outcome.OK


async def test_streams_of_who_is_gone_are_counted_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seats, "UNREAD_LIMIT", 64)
    async with serving(max_clients=1) as (port, engine), client(port) as good:
        async with client(port, 65_536) as bad:
            await bad.join()
            await flood(bad, 4000)
            await until(lambda: not engine.clients)
        async with asyncio.timeout(5):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await good.join()
                    break
                await asyncio.sleep(0.02)
        assert (await good.asks(1)).outcome is Outcome.OK
        tasks = [task for task in asyncio.all_tasks() if "Stream" in repr(task.get_coro())]
        assert len(tasks) <= 1, tasks


async def test_names_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serving() as (port, engine), client(port) as one:
        request = pb.RegisterRequest(name="a\nINFO forged\x1b[2J", fps=10, slo_ms=500)
        one.call = one.open((await one.stub.Register(request)).token)
        await one.asks(1)
        assert [seated.name for seated in engine.clients] == ["a\\nINFO forged\\x1b[2J"]
    assert not any("\n" in record.getMessage() for record in caplog.records)


async def test_refused_frames_take_from_the_bucket() -> None:
    async with serving() as (port, _), client(port) as one:
        await one.join(fps=1)
        outcomes = [(await one.asks(number, px=0)).outcome for number in range(60)]
        assert outcomes[:32] == [Outcome.ERROR] * 32
        assert set(outcomes[36:]) == {Outcome.REJECTED}
        assert (await one.asks(60)).reason == Reason.TOO_FAST


async def test_a_connection_that_breaks_leaves_its_seat_to_whoever_comes_back() -> None:
    async with serving() as (port, _), client(port) as one:
        await one.join()
        await one.call.read()
        for _ in range(10):
            await one.channel.close(None)
            await asyncio.sleep(0.02)
            again = Client(port)
            one.channel, one.call = again.channel, again.open(one.token)
            assert await one.call.read() is not EOF  # raises where the token is good no more
