"""The engine over gRPC: a thin layer around `server.seats`, with one stream a client."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NoReturn

import grpc

from jellyfish.errors import ProtocolError, RejectedError
from jellyfish.messages import Heartbeat
from jellyfish.protocol import VERSIONS
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol import jellyfish_pb2_grpc as pb_grpc
from jellyfish.protocol.convert import event_to_wire, frame_from_wire, registration_to_wire
from server.engine import Engine, NotServing, ServerFull
from server.seats import Ending, Peer, Seats, SeatStream, UnknownToken
from server.security import Context, certificate_name, identity
from server.throttled_log import ThrottledLog

TOKEN_KEY = "jellyfish-token"
SETTLE_S = 1.0, 10.0  # a client that has ended its side hears its last answers, within these
BREAK_S = 0.1  # after the last frame: a client that has left, or a connection that broke?
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone
_CODES = {
    Ending.SILENT: grpc.StatusCode.DEADLINE_EXCEEDED,
    Ending.UNREAD: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Ending.TAKEN_OVER: grpc.StatusCode.ABORTED,
    Ending.PUT_OUT: grpc.StatusCode.ABORTED,
    Ending.STOPPING: grpc.StatusCode.UNAVAILABLE,
}


class Service(pb_grpc.JellyfishServicer):  # type: ignore[misc]  # generated, without types
    """Jellyfish over gRPC.

    Args:
        engine: who serves.
        per_peer: how many clients one address or certificate name may have; None for half of all.
    """

    def __init__(self, engine: Engine, per_peer: int | None = None) -> None:
        self._engine, self._seats = engine, Seats(engine, per_peer)
        self._loop = asyncio.get_running_loop()
        self._refusals = ThrottledLog("refused", logging.INFO)

    async def Register(self, request: Any, context: Context) -> Any:  # noqa: N802 - from the .proto
        """Give a client a token."""
        if (request.version or 1) not in VERSIONS:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _other_version(request))
        peer = _peer(context)
        try:
            joined = self._seats.register(peer, request.name, request.fps, request.slo_ms)
        except RejectedError as error:
            self._refusals.tell(f"a client at {peer.address}: {error}")
            await _refuse(context, error)
        return registration_to_wire(joined)

    async def Unregister(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Let the holder of a token go."""
        try:
            self._seats.unregister(request.token, _peer(context))
        except RejectedError as error:
            await _refuse(context, error)
        return pb.UnregisterResponse()

    async def Stream(self, request_iterator: Any, context: Context) -> None:  # noqa: N802
        """Carry frames up, and acknowledgements, results and heartbeats down."""
        news, ended = asyncio.Event(), asyncio.Event()

        def wake() -> None:
            news.set()
            if stream.ending is not None:
                ended.set()

        try:
            stream = self._seats.open(_token(context), _peer(context), wake)
        except RejectedError as error:
            await _refuse(context, error)
        try:
            # Not with the first message: while that is under way, gRPC would refuse to abort.
            await context.send_initial_metadata(())
            ending, why = await self._serve(stream, context, news, ended)
            if ending is not Ending.CLEAN:
                await context.abort(_CODES[ending], str(why))  # gRPC takes no subclass of str
        finally:  # cancelled, for one: the connection broke
            stream.close()

    async def _serve(
        self, stream: SeatStream, context: Context, news: asyncio.Event, ended: asyncio.Event
    ) -> tuple[Ending, str]:
        """Read and write until the stream has ended; return why it has.

        gRPC cannot end a call in the middle of a message: where the client does not read it, what
        comes last is not over before that client's connection is.
        """
        reader = self._loop.create_task(self._read(stream, context))
        writer = self._loop.create_task(_write(stream, context, news))
        end = self._loop.create_task(ended.wait())
        tasks: tuple[asyncio.Task[Any], ...] = (reader, writer, end)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):
                if task.done() and (error := task.exception()) is not None:
                    stream.close(f"its connection broke: {error!r}")
            assert stream.ending is not None, "else none of the tasks would have ended"
            if stream.ending[0] is Ending.CLEAN:
                await asyncio.wait({writer})
            return stream.ending
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, limit_s: float) -> None:
        """Let every client read what it was told, then end its stream."""
        await self._seats.close(limit_s)

    async def _read(self, stream: SeatStream, context: Context) -> None:
        while (message := await context.read()) is not _EOF:
            stream.heard()
            try:
                frame = frame_from_wire(message)
            except ProtocolError as error:
                self._engine.refuse(stream.client, message.id, str(error))
            else:
                self._engine.submit(stream.client, frame)
        # gRPC says the same of a connection that broke, and a moment later cancels the call.
        await asyncio.sleep(BREAK_S)
        limit_s = min(max(SETTLE_S[0], 2 * stream.client.slo_ms / 1000), SETTLE_S[1])
        if await stream.settled(limit_s):
            stream.leave()
        else:
            stream.leave(Ending.UNREAD, f"did not read its last answers within {limit_s:g} s")


async def _write(stream: SeatStream, context: Context, news: asyncio.Event) -> None:
    """Tell the client what there is, as it comes; at once that the stream is open."""
    await context.write(event_to_wire(Heartbeat()))
    while stream.ending is None:
        while (event := stream.unread()) is not None:
            await context.write(event_to_wire(event))
            stream.told()
        news.clear()
        if stream.ending is None:
            await news.wait()


def _peer(context: Context) -> Peer:
    return Peer(identity(context), certificate_name(context))


def _token(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == TOKEN_KEY:
            return str(value)
    return ""


def _other_version(request: Any) -> str:
    spoken = ", ".join(map(str, VERSIONS))
    return f"protocol version {request.version} is not spoken here; there is {spoken}"


async def _refuse(context: Context, error: RejectedError) -> NoReturn:
    await context.abort(_code(error), str(error))
    raise AssertionError("abort raises")


def _code(error: RejectedError) -> grpc.StatusCode:
    if isinstance(error, UnknownToken):
        return grpc.StatusCode.UNAUTHENTICATED
    if isinstance(error, ServerFull):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, NotServing):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.INVALID_ARGUMENT
