"""The transport over gRPC: one channel, one bidirectional stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
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

T = TypeVar("T")

_PATIENCE_S = 10.0  # for connecting and registering, on a link as slow as a trace may be
_LEAVE_S = 0.3
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone
_REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
)


class GrpcTransport:
    """A connection to a Jellyfish server (see `client.transport.Transport`).

    Args:
        target: HOST:PORT of the server, or of the relay before it.
        security: TLS and bearer secret.
        server: what errors call the server, where `target` is a relay.
    """

    def __init__(
        self, target: str, security: Security | None = None, server: str | None = None
    ) -> None:
        self._target = target
        self._server = server or target
        self._security = security or Security()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._token = ""

    async def connect(self) -> None:
        """Reach the server; see `Transport.connect`."""
        self._channel = self._open()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._channel.channel_ready()
        except TimeoutError:
            distrust = ", or one of the two does not trust the other's certificate"
            doubt = "" if self._security.ca is None else distrust
            raise RunError(f"no server answers at {self._server}{doubt}") from None

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join and open the stream; see `Transport.register`."""
        stub = self._stub()
        request = pb.RegisterRequest(name=name, fps=fps, slo_ms=slo_ms, version=VERSIONS[-1])
        call = stub.Register(request, timeout=_PATIENCE_S, metadata=self._metadata())
        registration = registration_from_wire(await self._understood(call))
        self._token = registration.token
        self._call = stub.Stream(self._outgoing(), metadata=self._metadata())
        return registration

    def send(self, frame: Frame) -> None:
        """Hand over a frame; see `Transport.send`."""
        self._frames.put_nowait(frame)

    async def receive(self) -> Received:
        """Return what the server says next; see `Transport.receive`."""
        message = await self._understood(self._call.read())
        if message is _EOF:
            raise RunError(f"the server at {self._server} has ended the stream")
        return Received(event_from_wire(message), message.ByteSize())

    async def close(self) -> None:
        """Leave and close the channel; see `Transport.close`."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._token:
            request = pb.UnregisterRequest(token=self._token)
            with suppress(grpc.aio.AioRpcError, asyncio.TimeoutError):
                stub: Any = JellyfishStub(channel)
                await stub.Unregister(request, timeout=_LEAVE_S, metadata=self._metadata())
        if self._call is not None:
            self._call.cancel()
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
        try:
            credentials = self._security.credentials()
        except ConfigError as error:  # they were good at the start: somebody is writing them now
            raise RunError(str(error)) from error
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        host = host_of(self._server)  # the certificate's, also where a relay hides the server
        options.append(("grpc.ssl_target_name_override", host))
        return grpc.aio.secure_channel(self._target, credentials, options=options)

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

    async def _outgoing(self) -> AsyncIterator[Any]:
        while True:
            yield frame_to_wire(await self._frames.get())

    async def _understood(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._meaning(error) from error

    def _meaning(self, error: grpc.aio.AioRpcError) -> JellyfishError:
        if error.code() in _REFUSALS:
            return RejectedError(f"the server at {self._server} refuses: {error.details()}")
        reason = f"{error.code().name}: {error.details()}"
        return RunError(f"the server at {self._server} is gone ({reason})")
