"""The transport over gRPC: one channel and one bidirectional stream at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read on import; what matters, we say ourselves

import grpc

from client.security import Security, host_of
from client.transport import Received
from jellyfish.errors import ConfigError, JellyfishError, RejectedError, RunError
from jellyfish.messages import Frame, Registration
from jellyfish.protocol import VERSIONS
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.convert import event_from_wire, frame_to_wire, registration_from_wire
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from jellyfish.records import Reason

T = TypeVar("T")

_PATIENCE_S = 10.0  # for registering, on a link as slow as a trace may be
_LEAVE_S = 0.3
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone
_REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
)


class UnknownClientError(RejectedError):
    """The server does not know the client's token, or not its secret."""


class GrpcTransport:
    """A connection to a Jellyfish server (see `client.transport.Transport`).

    Args:
        targets: HOST:PORT of each server, or of the relay before it.
        security: TLS and bearer secret.
        names: what errors call the servers, where `targets` are relays.
    """

    def __init__(
        self,
        targets: Sequence[str],
        security: Security | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.servers = len(targets)
        self._targets, self._names = targets, names or targets
        self._at, self._go_on = 0, False  # the present server; whether to go to the next one
        self._security = security or Security()
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()  # None: no more come
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._first: Any = None  # message of a stream, while nobody has received it
        self._token, self._given_by = "", -1  # the server that gave it

    @property
    def _server(self) -> str:
        return self._names[self._at]

    async def connect(self) -> None:
        """Open a connection; see `Transport.connect`."""
        await self._drop()
        if self._go_on:
            self._at = (self._at + 1) % self.servers
        self._go_on = True  # unless all goes well
        self._channel = self._open()
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                distrust = ", or one of the two does not trust the other's certificate"
                doubt = "" if self._security.ca is None else distrust
                raise RunError(f"no server answers at {self._server}{doubt}")
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join and open the stream; see `Transport.register`."""
        self._token = ""
        request = pb.RegisterRequest(name=name, fps=fps, slo_ms=slo_ms, version=VERSIONS[-1])
        call = self._stub().Register(request, timeout=_PATIENCE_S, metadata=self._metadata())
        registration = registration_from_wire(await self._understood(call))
        self._token, self._given_by = registration.token, self._at
        await self._open_stream()
        return registration

    async def resume(self) -> bool:
        """Open the stream at the seat of before; see `Transport.resume`."""
        if not self._token or self._given_by != self._at:
            return False
        try:
            await self._open_stream()
        except UnknownClientError:
            return False
        return True

    async def _open_stream(self) -> None:
        """Open the stream; return when the server has said something, as it does at once."""
        self._frames.put_nowait(None)  # where the seat of before was refused
        frames = self._frames = asyncio.Queue[Frame | None]()
        self._call = self._stub().Stream(_outgoing(frames), metadata=self._metadata())
        self._first = await self._read()
        self._go_on = False

    def send(self, frame: Frame) -> None:
        """Hand over a frame; see `Transport.send`."""
        self._frames.put_nowait(frame)

    async def receive(self) -> Received:
        """Return what the server says next; see `Transport.receive`."""
        message, self._first = self._first, None
        if message is None:
            message = await self._read()
        return Received(event_from_wire(message), message.ByteSize())

    async def _read(self) -> Any:
        message = await self._understood(self._call.read())
        if message is _EOF:
            raise RunError(f"the server at {self._server} has ended the stream")
        return message

    async def close(self) -> None:
        """Leave and close the channel; see `Transport.close`."""
        if self._channel is not None and self._token:
            request = pb.UnregisterRequest(token=self._token)
            with suppress(grpc.aio.AioRpcError, asyncio.TimeoutError):
                stub: Any = JellyfishStub(self._channel)
                await stub.Unregister(request, timeout=_LEAVE_S, metadata=self._metadata())
        await self._drop()

    async def _drop(self) -> None:
        channel, self._channel = self._channel, None
        call, self._call = self._call, None
        if call is not None:
            self._frames.put_nowait(None)  # a call that has ended does not stop reading them
            call.cancel()
        if channel is not None:
            await channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 5_000),  # of silence, then a ping finds out who is gone
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),  # any number
        ]
        target = self._targets[self._at]
        try:
            credentials = self._security.credentials()
        except ConfigError as error:  # they were good at the start: somebody is writing them now
            raise RunError(str(error)) from error
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        host = host_of(self._server)  # the certificate's, also where a relay hides the server
        options.append(("grpc.ssl_target_name_override", host))
        return grpc.aio.secure_channel(target, credentials, options=options)

    def _stub(self) -> Any:
        if self._channel is None:
            raise RunError("not connected")
        return JellyfishStub(self._channel)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        pairs = []
        if self._token:
            pairs.append(("jellyfish-token", self._token))
        if self._security.secret is not None:
            pairs.append(("authorization", f"Bearer {self._security.secret}"))
        return tuple(pairs)

    async def _understood(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: grpc.aio.AioRpcError) -> JellyfishError:
        if error.details() == Reason.STOPPING:
            self._go_on = True
        if error.code() in _REFUSALS:
            unknown = error.code() is grpc.StatusCode.UNAUTHENTICATED
            kind = UnknownClientError if unknown else RejectedError
            return kind(f"the server at {self._server} refuses: {error.details()}")
        reason = f"{error.code().name}: {error.details()}"
        return RunError(f"the server at {self._server} is gone ({reason})")


async def _outgoing(frames: asyncio.Queue[Frame | None]) -> AsyncIterator[Any]:
    while (frame := await frames.get()) is not None:
        yield frame_to_wire(frame)
