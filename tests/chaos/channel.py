"""gRPC without gRPC: channels for the real transport, contexts for the real service.

Calls and messages travel over a client's `Link` as the bytes that protobuf makes of them. As much
of gRPC as client and server use: unary calls, one bidirectional stream, flow control by a window,
cancellation of handlers when their connection ends, and connections that end at any time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

import grpc

from experiment.virtual_time import VirtualTimeLoop
from jellyfish.protocol import jellyfish_pb2 as pb
from tests.chaos.link import Link

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
Code = grpc.StatusCode
WINDOW = 65_535  # bytes that may be under way or unread, each way of a stream: HTTP/2's default
HEADER = 40  # bytes around a message
RETRY_S = 1.0  # a channel that finds no server tries again
CONNECT_S = 20.0  # one that hears nothing, too
State = grpc.ChannelConnectivity
_FRAME: Any = pb.Frame
_REQUESTS: dict[str, Any] = {
    "/jellyfish.v1.Jellyfish/Register": pb.RegisterRequest,
    "/jellyfish.v1.Jellyfish/Unregister": pb.UnregisterRequest,
}


class Network:
    """Who can be reached: at most one server at a time, and the link of each client.

    Args:
        message_bytes: a larger message ends its call.
    """

    def __init__(self, loop: VirtualTimeLoop, message_bytes: int) -> None:
        self.loop, self.message_bytes = loop, message_bytes
        self.links: dict[str, Link] = {}
        self.server: Server | None = None

    def channel(self, target: str, **_: Any) -> Channel:
        """Return a channel of the client that `target` names; see grpc.aio.insecure_channel."""
        return Channel(self, target)


class Server:
    """The listening side: handlers by path, and the calls under way."""

    def __init__(self, network: Network, service: Any) -> None:
        self.network, self.loop = network, network.loop
        self.handlers: dict[str, Any] = {}
        for name in ("Register", "Unregister", "Stream"):
            self.handlers[f"/jellyfish.v1.Jellyfish/{name}"] = getattr(service, name)
        self.connections: set[Connection] = set()
        self.open = True
        self.tasks: set[asyncio.Task[None]] = set()
        self.streams: list[Call] = []  # all there ever were, for the checks

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; end those under way after `grace_s`, as grpc.aio.Server does."""
        self.open = False
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=grace_s)
        self.kill()
        if self.tasks:
            await asyncio.wait(list(self.tasks))

    def kill(self) -> None:
        """End every connection at once."""
        self.open = False
        for connection in sorted(self.connections, key=lambda c: c.target):
            connection.reset()


class Connection:
    """One client's connection to one server; it ends as a whole."""

    def __init__(self, link: Link, server: Server, target: str) -> None:
        self.link, self.server, self.target = link, server, target
        self.alive = True  # neither reset nor closed
        self.dropped = 0  # messages that a reset cost
        self.calls: list[Call] = []
        server.connections.add(self)

    def reset(self) -> None:
        """Break: what is under way is lost, both sides hear of it."""
        if not self.alive:
            return
        self.alive = False
        self.server.connections.discard(self)
        self.dropped = self.link.up.drop(self) + self.link.down.drop(self)
        for call in self.calls:
            call.finish(Code.UNAVAILABLE, "Socket closed")
            call.cancel_handler()

    def forget(self) -> None:
        """Break without the client: the server's side alone hears of it."""
        if self.alive:
            self.alive = False
            self.server.connections.discard(self)
            for call in self.calls:
                call.cancel_handler()


class Channel:
    """A client's channel; see grpc.aio.Channel."""

    def __init__(self, network: Network, target: str) -> None:
        self._network, self._target = network, target
        self._connection: Connection | None = None
        self._closed = False
        self._state = State.IDLE
        self._changed = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(None)

    async def channel_ready(self) -> None:
        state = self.get_state(try_to_connect=True)
        while state is not State.READY:
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._state is State.READY and (self._connection is None or not self._connection.alive):
            self._state = State.IDLE
        if self._state is State.IDLE and try_to_connect and not self._closed:
            self._state = State.CONNECTING
            self._connecting = self._network.loop.create_task(self._connect(), name="connecting")
        return self._state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        while self.get_state() is last:
            self._changed.clear()
            await self._changed.wait()

    async def _connect(self) -> None:
        """Reach the server, as often as it takes: a host that is there answers at once."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await self._there_and_back()
            if self.connection() is not None:
                self._set_state(State.READY)
                return
            self._set_state(State.TRANSIENT_FAILURE)
            await asyncio.sleep(RETRY_S)
            self._set_state(State.CONNECTING)

    def _set_state(self, state: grpc.ChannelConnectivity) -> None:
        self._state = state
        self._changed.set()

    def connection(self) -> Connection | None:
        """Return a living connection, a new one if need be; None while nobody listens."""
        if self._connection is None or not self._connection.alive:
            server = self._network.server
            if self._closed or server is None or not server.open:
                return None
            link = self._network.links[self._target]
            self._connection = Connection(link, server, self._target)
        return self._connection

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Any:
        def call(request: Any, timeout: float | None = None, metadata: Any = None) -> Any:
            made = Call(self, path, metadata, response_deserializer)
            return _unary(made, request_serializer(request), timeout)

        return call

    def stream_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Any:
        def call(requests: Any = None, metadata: Any = None, **_: Any) -> Call:
            made = Call(self, path, metadata, response_deserializer, request_serializer)
            made.start()
            if requests is not None:
                made.consume(requests)
            return made

        return call

    async def close(self, grace: float | None) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None and connection.alive:
            for call in connection.calls:
                call.finish(Code.CANCELLED, "the channel was closed")
            connection.link.up.send(HEADER, connection.forget, connection)

    async def _there_and_back(self) -> None:
        done = asyncio.get_running_loop().create_future()
        link = self._network.links[self._target]
        link.up.send(HEADER, lambda: link.down.send(HEADER, lambda: _set(done)))
        await done


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _unary(call: Call, request: bytes, timeout_s: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            call.start()
            await call.write_bytes(request)
            response = await call.read()
            if response is EOF:
                raise call.error()
            return response
    except asyncio.InvalidStateError:
        raise call.error() from None
    except TimeoutError:
        call.finish(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        raise call.error() from None
    finally:
        call.cancel()


class Inbox:
    """Messages that have arrived, for one reader; then the end."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.ended = False

    def put(self, message: Any) -> None:
        self._messages.append(message)
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            if self.ended:
                return EOF
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._messages.popleft()


class Credit:
    """Flow control: bytes that are under way or unread."""

    def __init__(self) -> None:
        self._used = 0
        self._news = asyncio.Event()

    def took(self, size: int) -> bool:
        """Count a message if there is room now; return whether there was."""
        if self._used >= WINDOW:
            return False
        self._used += size
        return True

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()

    def give(self, size: int) -> None:
        self._used -= size
        self._news.set()

    def look_again(self) -> None:
        self._news.set()


class Call:
    """One call, both sides of it: the client's call object, and the making of the context."""

    def __init__(
        self,
        channel: Channel,
        path: str,
        metadata: Any,
        deserialize: Any,
        serialize: Any = None,
    ) -> None:
        self._channel, self._path = channel, path
        self.metadata = tuple(metadata or ())
        self._deserialize, self._serialize = deserialize, serialize
        self.inbox = Inbox()  # of the client
        self.requests = Inbox()  # of the server
        self.up, self.down = Credit(), Credit()
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.connection: Connection | None = None
        self.context: Context | None = None
        self._ended = asyncio.Event()
        self._handler: asyncio.Task[None] | None = None
        self._consumer: asyncio.Task[None] | None = None

    # --- the client's side

    def start(self) -> None:
        connection = self._channel.connection()
        if connection is None:
            self.finish(Code.UNAVAILABLE, "failed to connect to all addresses")
            return
        self.connection = connection
        connection.calls.append(self)
        connection.link.up.send(HEADER, self._arrive, connection)

    def consume(self, requests: Any) -> None:
        """Write what an iterator yields."""
        loop = asyncio.get_running_loop()
        self._consumer = loop.create_task(self._consume(requests), name="consumer")

    async def _consume(self, requests: Any) -> None:
        async for request in requests:
            await self.write(request)
        await self.done_writing()

    async def write(self, request: Any) -> None:
        await self.write_bytes(self._serialize(request))

    async def write_bytes(self, data: bytes) -> None:
        while not self.up.took(len(data)):
            await self.up.news()
        if self.status is not None:
            raise asyncio.InvalidStateError("the call is finished")
        self.send_up(data)

    def send_up(self, data: bytes) -> None:
        connection = self.connection
        if connection is not None and connection.alive:
            arrive = partial(self._request, data)
            connection.link.up.send(len(data) + HEADER, arrive, connection)

    async def done_writing(self) -> None:
        connection = self.connection
        if connection is not None and connection.alive:
            connection.link.up.send(HEADER, self.requests.end, connection)

    async def read(self) -> Any:
        data = await self.inbox.get()
        if data is EOF:
            if self.status is None or self.status[0] is not Code.OK:
                raise self.error()
            return EOF
        self.down.give(len(data))
        return self._deserialize(data)

    def error(self) -> grpc.aio.AioRpcError:
        code, details = self.status or (Code.UNKNOWN, "no status")
        none = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(code, none, none, details=details)

    async def code(self) -> grpc.StatusCode:
        await self._ended.wait()
        assert self.status is not None
        return self.status[0]

    async def details(self) -> str:
        await self._ended.wait()
        assert self.status is not None
        return self.status[1]

    def done(self) -> bool:
        return self.status is not None

    def cancel(self) -> bool:
        if self.status is not None:
            self._stop_consumer()
            return False
        self.finish(Code.CANCELLED, "Locally cancelled by application!")
        connection = self.connection
        if connection is not None and connection.alive:
            connection.link.up.send(HEADER, self.cancel_handler, connection)
        return True

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """Have the client's side end, unless it has."""
        if self.status is None:
            self.status = code, details
            self.inbox.end()
            self.up.look_again()
            self._ended.set()
            self._stop_consumer()

    def _stop_consumer(self) -> None:
        if self._consumer is not None:
            self._consumer.cancel()
            self._consumer = None

    # --- the server's side

    def _arrive(self) -> None:
        assert self.connection is not None
        server = self.connection.server
        if not self.connection.alive:
            return
        if not server.open:
            self._send_status((Code.UNAVAILABLE, "the server is stopping"))
            return
        self.context = Context(self)
        if self._path.endswith("/Stream"):
            server.streams.append(self)
        task = server.loop.create_task(self._handle(server.handlers[self._path]), name=self._path)
        self._handler = task
        server.tasks.add(task)
        task.add_done_callback(server.tasks.discard)

    async def _handle(self, handler: Any) -> None:
        context = self.context
        assert context is not None
        status = Code.UNKNOWN, "the handler raised"
        try:
            if self._path.endswith("/Stream"):
                await handler(None, context)
            else:
                data = await self.requests.get()
                response = await handler(_REQUESTS[self._path].FromString(data), context)
                await context.write(response)
            status = context.status or (Code.OK, "")
        except grpc.aio.AbortError:
            assert context.status is not None
            status = context.status
        except asyncio.CancelledError:
            status = Code.CANCELLED, "cancelled"
        finally:
            context.over = True
            self.requests.end()
            self._send_status(status)

    def _send_status(self, status: tuple[grpc.StatusCode, str]) -> None:
        connection = self.connection
        if connection is not None and connection.alive:
            connection.link.down.send(HEADER, lambda: self.finish(*status), connection)

    def _request(self, data: bytes) -> None:
        most = self._channel._network.message_bytes
        if len(data) > most and self.context is not None:
            self._send_status((Code.RESOURCE_EXHAUSTED, f"{len(data)} vs. {most} bytes"))
            self.cancel_handler()
            return
        self.requests.put(data)

    def cancel_handler(self) -> None:
        self.requests.end()
        if self._handler is not None:
            self._handler.cancel()

    def send_down(self, data: bytes) -> None:
        connection = self.connection
        if connection is not None and connection.alive:
            arrive = partial(self.inbox.put, data)
            connection.link.down.send(len(data) + HEADER, arrive, connection)


class Context:
    """What a handler gets; see grpc.aio.ServicerContext."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.over = False
        self.read_at: list[tuple[int, float, int]] = []  # frame, when, bytes
        self.written: list[tuple[str, int, float, Any]] = []  # kind, frame, when, message

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._call.metadata

    def peer(self) -> str:
        assert self._call.connection is not None
        return f"ipv4:10.0.0.{self._call.connection.target.rpartition('-')[2]}:1234"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return self.over

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code, self.status[1] if self.status else ""

    def set_details(self, details: str) -> None:
        self.status = self.status[0] if self.status else Code.OK, details

    def set_trailing_metadata(self, _: Any) -> None:
        pass

    async def send_initial_metadata(self, _: Any) -> None:
        pass

    async def abort(self, code: grpc.StatusCode, details: str = "", _: Any = ()) -> None:
        self.status = code, details
        raise grpc.aio.AbortError

    async def read(self) -> Any:
        data = await self._call.requests.get()
        if data is EOF:
            return EOF
        self._call.up.give(len(data))
        message = _FRAME.FromString(data)
        self.read_at.append((message.id, self._call._channel._network.loop.time(), len(data)))
        return message

    async def write(self, message: Any) -> None:
        call = self._call
        connection = call.connection
        data = message.SerializeToString()
        assert connection is not None
        link = connection.link
        if not link.window_open:
            link.when_open(call.down.look_again)
        while not link.window_open or not call.down.took(len(data)):
            await call.down.news()
        if self.over or not connection.alive:
            raise grpc.aio.UsageError("RPC already finished.")
        self._note(message)
        call.send_down(data)

    def _note(self, message: Any) -> None:
        if not isinstance(message, pb.ServerMessage):
            return
        kind = message.WhichOneof("kind")
        if kind in ("ack", "result"):
            now_s = self._call._channel._network.loop.time()
            said = getattr(message, kind)
            self.written.append((kind, said.id, now_s, said))
