"""Who may call a server, over real gRPC: secret, certificates, versions, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from jellyfish.protocol import VERSIONS
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from server.security import WATCHES
from tests.served import served

EOF = grpc.aio.EOF
SECRET = "open sesame"
Metadata = list[tuple[str, str]]


def bearer(secret: str) -> Metadata:
    return [("authorization", f"Bearer {secret}")]


OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def plain(port: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN_CONNECTION)


def secret_file(folder: Path) -> str:
    path = folder / "secret"
    path.write_text(f"{SECRET}\n")
    return str(path)


async def code_of(call: Any) -> grpc.StatusCode:
    """Return how a call of any kind ends."""
    async with asyncio.timeout(10):
        return await call.code()  # type: ignore[no-any-return]


def register(channel: grpc.aio.Channel, metadata: Metadata, **fields: Any) -> Any:
    request = pb.RegisterRequest(name="a", fps=10, slo_ms=500, **fields)
    stub: Any = JellyfishStub(channel)
    return stub.Register(request, metadata=metadata)


CALLS: dict[str, Callable[[grpc.aio.Channel, Metadata], Any]] = {
    "Register": register,
    "Unregister": lambda channel, metadata: JellyfishStub(channel).Unregister(
        pb.UnregisterRequest(token="x"), metadata=metadata
    ),
    "Stream": lambda channel, metadata: JellyfishStub(channel).Stream(metadata=metadata),
    "reflection": lambda channel, metadata: ServerReflectionStub(channel).ServerReflectionInfo(
        iter([ServerReflectionRequest(list_services="")]), metadata=metadata
    ),
    "no method": lambda channel, metadata: channel.unary_unary("/jellyfish.v1.Jellyfish/No")(
        b"", metadata=metadata
    ),
}


async def test_every_method_wants_the_secret_and_health_checks_do_not(tmp_path: Path) -> None:
    job = {"secret_file": secret_file(tmp_path), "reflection": True}
    async with served(tmp_path / "out", **job) as port, plain(port) as channel:
        for name, call in CALLS.items():
            for wrong in ([], bearer("open barley"), [("authorization", SECRET)]):
                code = await code_of(call(channel, wrong))
                assert code is grpc.StatusCode.UNAUTHENTICATED, name
        registered = register(channel, bearer(SECRET))
        assert (await registered).token
        reflected = CALLS["reflection"](channel, bearer(SECRET))
        assert len((await reflected.read()).list_services_response.service) == 3
        health: Any = HealthStub(channel)
        checked = await health.Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_connection_watches_health_a_few_times_only(tmp_path: Path) -> None:
    async with served(tmp_path) as port, plain(port) as channel, plain(port) as other:
        request = health_pb2.HealthCheckRequest()
        stub: Any = HealthStub(channel)
        watches = [stub.Watch(request) for _ in range(WATCHES)]
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert await code_of(stub.Watch(request)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        elsewhere: Any = HealthStub(other)
        assert (await elsewhere.Watch(request).read()) is not EOF
        watches.pop().cancel()  # makes room for another
        async with asyncio.timeout(10):
            while not await _is_answered(stub.Watch(request)):
                await asyncio.sleep(0.02)


async def _is_answered(watch: Any) -> bool:
    try:
        return await watch.read() is not EOF
    except grpc.aio.AioRpcError:
        return False


async def test_versions(tmp_path: Path) -> None:
    async with served(tmp_path) as port, plain(port) as channel:
        for spoken in (0, *VERSIONS):  # 0: clients of before
            assert (await register(channel, [], version=spoken)).token
        newer = register(channel, [], version=VERSIONS[-1] + 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await newer
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"there is {VERSIONS[-1]}" in str(caught.value.details())
