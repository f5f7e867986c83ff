"""Who may call a server, over real gRPC: secret, certificates, versions, limits."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from client.grpc_transport import GrpcTransport
from client.security import Security
from experiment.authority import Authority
from jellyfish.errors import RunError
from jellyfish.protocol import VERSIONS
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from server.limits import Limits
from server.process import MAX_METADATA_BYTES, OPTIONS
from server.security import WATCHES, certificate_name, identity
from tests.engine_world import profile
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
    async with asyncio.timeout(60):
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
    # Nothing is written: under a write, this client tells INTERNAL for any status (grpc #36066).
    "reflection": lambda channel, metadata: ServerReflectionStub(channel).ServerReflectionInfo(
        metadata=metadata
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
        await reflected.write(ServerReflectionRequest(list_services=""))
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
        long = elsewhere.Watch(health_pb2.HealthCheckRequest(service="x" * 1000))
        assert await code_of(long) is grpc.StatusCode.INVALID_ARGUMENT
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


class Files:
    """The certificates of a server in files, and credentials of clients."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("ours")
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "s.pem", "s.key"))
        self.ca.write_bytes(self.authority.pem)
        self.renew("first")

    def renew(self, name: str) -> None:
        for path, content in zip(
            (self.cert, self.key), self.authority.issue(name, "localhost"), strict=True
        ):
            put(path, content)

    @property
    def job(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    @property
    def mutual_job(self) -> dict[str, str]:
        return {**self.job, "tls_client_ca": str(self.ca)}

    @asynccontextmanager
    async def channel(
        self, port: int, name: str | None = None, authority: Authority | None = None
    ) -> AsyncIterator[grpc.aio.Channel]:
        """Connect, with a certificate of that name and CA where a name is given."""
        issuer = authority or self.authority
        cert, key = issuer.issue(name) if name else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, key, cert)
        target = f"localhost:{port}"
        async with grpc.aio.secure_channel(target, credentials, OWN_CONNECTION) as channel:
            yield channel


def put(path: Path, content: bytes) -> None:
    """Write a file, and have it look changed whatever the clock of the file system is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(content)
    os.utime(path, ns=(before + 1_000_000_000,) * 2)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_who_shows_no_certificate_of_the_ca_is_refused(tmp_path: Path, files: Files) -> None:
    async with served(tmp_path / "out", **files.mutual_job) as port:
        for name, authority in ((None, None), ("a", Authority("theirs"))):
            async with files.channel(port, name, authority) as channel:
                assert await code_of(register(channel, [])) is grpc.StatusCode.UNAVAILABLE
        async with plain(port) as channel:
            assert await code_of(register(channel, [])) is grpc.StatusCode.UNAVAILABLE
        async with files.channel(port, "a") as channel:
            assert (await register(channel, [])).token


async def test_a_token_serves_its_owner_alone(tmp_path: Path, files: Files) -> None:
    async with (
        served(tmp_path / "out", **files.mutual_job) as port,
        files.channel(port, "a") as own,
        files.channel(port, "b") as other,
        files.channel(port, "a") as own_again,
    ):
        token = (await register(own, [])).token
        metadata = [("jellyfish-token", token)]
        theirs: Any = JellyfishStub(other)
        assert await code_of(theirs.Stream(metadata=metadata)) is grpc.StatusCode.UNAUTHENTICATED
        leave = pb.UnregisterRequest(token=token)
        assert await code_of(theirs.Unregister(leave)) is grpc.StatusCode.UNAUTHENTICATED
        ours: Any = JellyfishStub(own_again)
        assert await ours.Stream(metadata=metadata).read() is not EOF  # a heartbeat
        await ours.Unregister(leave)


async def test_certificates_are_exchanged_live(
    tmp_path: Path, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        served(tmp_path / "out", **files.job) as port,
        files.channel(port) as before,
    ):
        token = (await register(before, [])).token
        assert await shown(port, files) == "first"
        files.renew("second")
        assert await shown(port, files) == "second"
        for path in (files.key, files.cert):
            kept = path.read_bytes()
            caplog.clear()
            put(path, b"half a cert")
            assert await shown(port, files) == "second"
            assert await shown(port, files) == "second"
            (told,) = [r.message for r in caplog.records if r.levelno == logging.ERROR]
            assert told.startswith("the certificates stay as they were: tls_")
            assert str(path) in told
            put(path, kept)
        files.renew("third")
        assert await shown(port, files) == "third"
        leaving: Any = JellyfishStub(before)
        await leaving.Unregister(pb.UnregisterRequest(token=token))  # the connection of before


async def test_cas_of_clients_are_exchanged_live(tmp_path: Path, files: Files) -> None:
    theirs = Authority("theirs")
    async with served(tmp_path / "out", **files.mutual_job) as port:
        put(files.ca, theirs.pem)
        async with files.channel(port, "a", theirs) as channel:
            assert (await register(channel, [])).token
        async with files.channel(port, "a") as channel:
            assert await code_of(register(channel, [])) is grpc.StatusCode.UNAVAILABLE


async def shown(port: int, files: Files) -> str:
    """Return the common name in the certificate that the server shows to a new connection."""
    context = ssl.create_default_context(cafile=files.ca)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    name = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])["commonName"]
    writer.close()
    return str(name)


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
async def test_tls_1_3_is_what_is_spoken(
    tmp_path: Path, files: Files, most: ssl.TLSVersion
) -> None:
    """1.2 is possible, which gRPC for Python cannot forbid; 1.3 is taken where both know it."""
    async with served(tmp_path / "out", **files.job) as port:
        context = ssl.create_default_context(cafile=files.ca)
        context.set_alpn_protocols(["h2"])
        context.maximum_version = most
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == most.name.replace("_", ".")
        writer.close()


async def test_a_client_reads_its_certificate_at_each_connection(
    tmp_path: Path, files: Files
) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "c.key"
    security = Security(ca=files.ca, cert=cert, key=key)
    async with served(tmp_path / "out", **files.mutual_job) as port:
        for name in ("a", "b"):
            for path, content in zip((cert, key), files.authority.issue(name), strict=True):
                put(path, content)
            transport = GrpcTransport([f"localhost:{port}"], security)
            try:
                await transport.connect()
                assert (await transport.register(name, 10, 500)).token
            finally:
                await transport.close()


async def test_a_server_of_another_ca_is_told(tmp_path: Path, files: Files) -> None:
    theirs = tmp_path / "theirs.pem"
    theirs.write_bytes(Authority("theirs").pem)
    async with served(tmp_path / "out", **files.job) as port:
        transport = GrpcTransport([f"localhost:{port}"], Security(ca=theirs))
        with pytest.raises(RunError, match="does not trust the other's certificate"):
            await transport.connect()
        await transport.close()


@pytest.mark.parametrize(
    ("host", "name", "known_as"),
    [("127.0.0.1", None, "127.0.0.1"), ("[::1]", None, "::1"), ("localhost", "a", "a")],
)
async def test_identity(host: str, name: str | None, known_as: str, files: Files) -> None:
    async def tell(_request: bytes, context: Any) -> bytes:
        assert certificate_name(context) == name
        return identity(context).encode()

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(tell)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"M": method}),))
    cert = files.authority.issue("s", "localhost")
    credentials = grpc.ssl_server_credentials([cert[::-1]], files.authority.pem, True)
    secure = server.add_secure_port if name else server.add_insecure_port
    port = secure(f"{host}:0", *([credentials] if name else []))
    await server.start()
    try:
        opened = files.channel(port, name) if name else grpc.aio.insecure_channel(f"{host}:{port}")
        async with opened as channel:
            assert (await channel.unary_unary("/s/M")(b"")).decode() == known_as
    finally:
        await server.stop(0)


async def test_large_metadata_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as port, plain(port) as channel:
        large = [("x", "x" * MAX_METADATA_BYTES)]
        assert await code_of(register(channel, large)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await register(channel, [("x", "x" * 1000)])).token


async def test_a_connection_has_so_many_calls_at_once(tmp_path: Path) -> None:
    """What the server's HTTP/2 settings say, as it sends them."""
    async with served(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        head = await reader.readexactly(9)
        assert head[3] == 4  # SETTINGS
        content = await reader.readexactly(int.from_bytes(head[:3]))
        settings = dict(struct.iter_unpack(">HI", content))
        assert settings[3] == dict(OPTIONS)["grpc.max_concurrent_streams"]
        assert settings[4] == Limits.of(profile(), max_clients=256).message_bytes
        assert settings[6] == MAX_METADATA_BYTES
        writer.close()


async def test_pings_are_welcome(tmp_path: Path) -> None:
    """A server of gRPC's own settings sends a client away at its third ping without data."""
    options = [
        *OWN_CONNECTION,
        ("grpc.keepalive_time_ms", 1_100),  # gRPC waits a second at least
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with (
        served(tmp_path) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel,
    ):
        await channel.channel_ready()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
