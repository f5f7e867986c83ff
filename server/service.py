"""The engine over gRPC: registration, and one stream a client."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn

import grpc

from jellyfish.errors import ProtocolError, RejectedError
from jellyfish.messages import Event, Heartbeat, Registration
from jellyfish.protocol import VERSIONS
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol import jellyfish_pb2_grpc as pb_grpc
from jellyfish.protocol.convert import event_to_wire, frame_from_wire, registration_to_wire
from server.clients import ClientHandle
from server.engine import Engine, NotServing, ServerFull
from server.security import certificate_name
from server.settings import HEARTBEAT_S, SILENCE_S

log = logging.getLogger(__name__)

UNREAD_LIMIT = 1024  # messages for a client that does not read them
NAME_LIMIT = 200
TOKEN_KEY = "jellyfish-token"

Context = Any  # grpc.aio.ServicerContext is generic in ways that help nobody here


class Connection:
    """A registered client's side of the service: what it is to be told, and its end.

    Args:
        owner: the name in the certificate of who registered; nobody else can use the token.
    """

    def __init__(self, owner: str | None = None) -> None:
        self.owner = owner
        self.client: ClientHandle | None = None
        self.streaming = False
        self.ended = asyncio.Event()  # it is out: its stream must end
        self._unread: deque[Event] = deque()
        self._news = asyncio.Event()

    def deliver(self, event: Event) -> None:
        """Queue an event for the client.

        Raises:
            ProtocolError: it does not read; the engine removes it.
        """
        if len(self._unread) >= UNREAD_LIMIT:
            self.end()
            raise ProtocolError(f"it left {UNREAD_LIMIT} messages unread")
        self._unread.append(event)
        self._news.set()

    async def write(self, context: Context) -> None:
        """Pass events on as they come, and heartbeats when there are none, until the end."""
        while not self.ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._news.wait()
            self._news.clear()
            if not self._unread:
                self._unread.append(Heartbeat())
            while self._unread and not self.ended.is_set():
                await context.write(event_to_wire(self._unread[0]))
                self._unread.popleft()  # only now: `settled` counts what is not yet written

    def end(self) -> None:
        """Have the stream end after the message that is being written."""
        self.ended.set()
        self._news.set()

    async def settled(self, limit_s: float) -> None:
        """Wait until all frames are answered and all answers written, for `limit_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._unread or (self.client is not None and self.client.unanswered):
                    await asyncio.sleep(0.01)


class Service(pb_grpc.JellyfishServicer):  # type: ignore[misc]  # generated, without types
    """Jellyfish over gRPC.

    Args:
        engine: who serves.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connections: dict[str, Connection] = {}
        self._loop = asyncio.get_running_loop()

    async def Register(self, request: Any, context: Context) -> Any:  # noqa: N802 - from the .proto
        """Admit a client and give it its token."""
        if (request.version or 1) not in VERSIONS:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, _other_version(request))
        name = request.name[:NAME_LIMIT]
        connection = Connection(certificate_name(context))
        try:
            client = self._engine.join(name, request.fps, request.slo_ms, connection.deliver)
        except RejectedError as error:
            log.info("%r is refused: %s", name, error)
            await context.abort(_code(error), str(error))
        connection.client = client
        token = secrets.token_hex(16)
        self._connections[token] = connection
        self._loop.call_later(SILENCE_S, self._expect_stream, token)
        log.info("%r joins as client %d", name, client.number)
        settings = self._engine.settings
        return registration_to_wire(
            Registration(
                token=token,
                first_px=settings.input_px[0],
                input_px=settings.input_px,
                frame_bytes=settings.frame_bytes,
                heartbeat_s=HEARTBEAT_S,
            )
        )

    async def Unregister(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Let the holder of a token go."""
        await self._held(request.token, context)
        self._remove(request.token, "leaves")
        return pb.UnregisterResponse()

    async def Stream(self, request_iterator: Any, context: Context) -> None:  # noqa: N802
        """Carry frames up, and acknowledgements, results and heartbeats down."""
        token = str(_metadata(context, TOKEN_KEY))
        connection = await self._held(token, context)
        if connection.streaming:
            status = grpc.StatusCode.FAILED_PRECONDITION
            await context.abort(status, "this client has a stream already")
        connection.streaming = True
        reader = self._loop.create_task(self._read(connection, context))
        writer = self._loop.create_task(connection.write(context))
        ended = self._loop.create_task(connection.ended.wait())
        why = "is gone"
        try:
            await asyncio.wait({reader, writer, ended}, return_when=asyncio.FIRST_COMPLETED)
            why = _why_ended(reader, writer)
            self._remove(token, why)
            # gRPC cannot end a call in the middle of a message: one to a client that does not
            # read is waited for until that client's connection ends.
            await asyncio.wait({writer})
        finally:  # cancelled: the client's connection has ended, or the server's has
            self._remove(token, why)
            for task in (reader, writer, ended):
                task.cancel()
            await asyncio.gather(reader, writer, ended, return_exceptions=True)

    async def _held(self, token: str, context: Context) -> Connection:
        """Return the connection of a token, if it is the caller's; end the call otherwise."""
        connection = self._connections.get(token)
        if connection is None or connection.owner != certificate_name(context):
            await _refuse_token(context)
        return connection

    async def close(self, limit_s: float) -> None:
        """Let every client read what it was told, then end its stream."""
        connections = list(self._connections.values())
        await asyncio.gather(*(c.settled(limit_s) for c in connections if c.streaming))
        for token in list(self._connections):
            self._remove(token, "is sent away")

    async def _read(self, connection: Connection, context: Context) -> None:
        client = connection.client
        assert client is not None
        silence_s = max(SILENCE_S, 3 / client.fps)
        async with asyncio.timeout(silence_s) as limit:
            while (message := await context.read()) is not _EOF:
                limit.reschedule(self._loop.time() + silence_s)
                self._take(client, message)
            limit.reschedule(None)
        await connection.settled(min(SILENCE_S, max(1.0, 2 * client.slo_ms / 1000)))

    def _take(self, client: ClientHandle, message: Any) -> None:
        try:
            frame = frame_from_wire(message)
        except ProtocolError as error:
            self._engine.refuse(client, message.id, str(error))
        else:
            self._engine.submit(client, frame)

    def _expect_stream(self, token: str) -> None:
        connection = self._connections.get(token)
        if connection is not None and not connection.streaming:
            self._remove(token, "never opened its stream")

    def _remove(self, token: str, why: str) -> None:
        connection = self._connections.pop(token, None)
        if connection is not None and connection.client is not None:
            client = connection.client
            log.info("client %d (%r) %s", client.number, client.name, why)
            self._engine.leave(client)
            connection.end()


_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone


def _why_ended(reader: asyncio.Task[None], writer: asyncio.Task[None]) -> str:
    for task in (reader, writer):
        error = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(error, TimeoutError):
            return "was silent for too long"
        if error is not None:
            return f"is gone: {error!r}"
    return "has ended its stream" if reader.done() else "is out"


def _code(error: RejectedError) -> grpc.StatusCode:
    if isinstance(error, ServerFull):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    if isinstance(error, NotServing):
        return grpc.StatusCode.UNAVAILABLE
    return grpc.StatusCode.INVALID_ARGUMENT


def _metadata(context: Context, key: str) -> str | bytes:
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value  # type: ignore[no-any-return]
    return ""


def _other_version(request: Any) -> str:
    spoken = ", ".join(map(str, VERSIONS))
    return f"protocol version {request.version} is not spoken here; there is {spoken}"


async def _refuse_token(context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token; register first")
    raise AssertionError("abort raises")
