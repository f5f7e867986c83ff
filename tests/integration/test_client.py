"""The client process over real gRPC and a real relay, against servers that may misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from client.__main__ import main
from experiment.authority import Authority
from experiment.collect import recover
from jellyfish.files.detections import image_id, read_coco
from jellyfish.files.tables import read_table
from jellyfish.messages import Ack, Answer, Event, Heartbeat, Registration
from jellyfish.protocol.convert import event_to_wire, registration_to_wire
from jellyfish.protocol.jellyfish_pb2 import UnregisterResponse
from jellyfish.protocol.jellyfish_pb2_grpc import (
    JellyfishServicer,
    add_JellyfishServicer_to_server,
)
from jellyfish.records import Outcome, Stages
from tests.boxes import ONE_BOX

Hook = Callable[["Server"], Awaitable[None]]


@dataclass
class Server(JellyfishServicer):
    """Answers each frame at once, as `behaviour` wants it."""

    behaviour: str = "good"
    frames: list[Any] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Event = field(default_factory=asyncio.Event)
    authorization: str = ""

    async def Register(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.behaviour == "refuse":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is full")
        metadata = dict(context.invocation_metadata())
        self.authorization = metadata.get("authorization", "")
        return registration_to_wire(
            Registration("secret-token", 320, (128, 320), (3_000.0, 15_000.0), 0.5)
        )

    async def Unregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.token == "secret-token"
        self.left.set()
        return UnregisterResponse()

    async def Stream(self, requests: Any, context: Any) -> None:  # noqa: N802
        assert dict(context.invocation_metadata())["jellyfish-token"] == "secret-token"
        await context.write(event_to_wire(Heartbeat()))
        writing = asyncio.Lock()  # a call takes one write at a time
        heart = asyncio.create_task(self._beat(context, writing))
        try:
            async for frame in requests:
                self.frames.append(frame)
                self.first.set()
                if self.behaviour == "silent":
                    continue
                if self.behaviour == "end":
                    return
                for event in self._events(frame.id):
                    async with writing:
                        await context.write(event_to_wire(event))
        finally:
            heart.cancel()

    def _events(self, number: int) -> list[Event]:
        stages = Stages(0.1, 0.2, 0.3, 0.4)
        answer = Answer(number, Outcome.OK, "", 320, 320, 0, 1, 1.0, stages, ONE_BOX)
        return [Ack(number, 0.1), answer]

    async def _beat(self, context: Any, writing: asyncio.Lock) -> None:
        while self.behaviour != "silent":
            async with writing:
                await context.write(event_to_wire(Heartbeat()))
            await asyncio.sleep(0.3)


@asynccontextmanager
async def serving(
    behaviour: str = "good", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[Server, grpc.aio.Server, int]]:
    service = Server(behaviour)
    server = grpc.aio.server()
    add_JellyfishServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield service, server, port
    finally:
        await server.stop(0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"HFYU"), 10, (160, 120))
    rng = np.random.default_rng(0)
    for _ in range(5):
        writer.write(rng.integers(0, 256, (120, 160, 3)).astype(np.uint8))
    writer.release()
    return path


class ClientProcess:
    """`python -m client` as a child."""

    def __init__(self, folder: Path, video: Path, port: int, **changes: Any) -> None:
        self.out = folder
        job = {
            "name": "phone",
            "client": 4,
            "server": f"127.0.0.1:{port}",
            "fps": 20,
            "slo_ms": 500,
            "stream_s": 1,
            "clip": {"name": "clip", "path": str(video)},
            "out_dir": str(folder),
            "wait_for_go": False,
        }
        (folder / "job.json").write_text(json.dumps({**job, **changes}))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **options: Any) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "client", "--job", str(self.out / "job.json")),
            stderr=asyncio.subprocess.PIPE,
            **options,
        )

    async def end(self, patience_s: float = 30) -> tuple[int, str]:
        """Wait for its end; return exit code and stderr."""
        assert self.process is not None
        try:
            async with asyncio.timeout(patience_s):
                _, errors = await self.process.communicate()
        finally:
            with suppress(ProcessLookupError):
                self.process.kill()
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()

    async def run(self) -> tuple[int, str]:
        await self.start()
        return await self.end()

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.out / "client-4.frames.parquet").to_pylist()
        return rows

    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.out / "client-4.json").read_text())
        return summary


async def test_a_stream_through_the_relay(tmp_path: Path, clip: Path) -> None:
    trace = {"mbps": [40, 20], "step_s": 0.5}
    async with serving() as (server, _, port):
        client = ClientProcess(tmp_path, clip, port, trace=trace, delay_ms=5)
        code, errors = await client.run()
        assert (code, errors) == (0, "")
        assert server.left.is_set()
    rows, summary = client.rows(), client.summary()
    assert [row["frame"] for row in rows] == list(range(20))
    sent = [row for row in rows if row["bytes_up"]]
    assert len(sent) == summary["sent"] == len(server.frames) > 10
    assert summary["counts"]["ok"] + summary["counts"]["late"] == len(sent)
    assert all(row["e2e_ms"] >= 10 for row in sent)  # the delay, both ways
    assert {row["bandwidth_true_kbps"] for row in rows} == {40_000, 20_000}
    assert summary["relay"]["bytes_up"] > sum(row["bytes_up"] for row in rows)
    assert summary["relay"]["bytes_down"] > sum(row["bytes_down"] for row in rows)
    assert [frame.tag for frame in server.frames] == [
        f"clip:{row['clip_frame']}".encode() for row in sent
    ]
    images = [np.frombuffer(frame.image, np.uint8) for frame in server.frames]
    sizes = [cv2.imdecode(image, cv2.IMREAD_COLOR).shape[0] for image in images]
    assert sizes == [row["px_sent"] for row in sent] == [frame.px for frame in server.frames]
    found = read_coco(tmp_path / "client-4.detections.json")
    assert set(found) == {image_id(4, row["frame"]) for row in sent}
    np.testing.assert_allclose(found[image_id(4, 3)].boxes, ONE_BOX.boxes, atol=1e-6)


async def test_it_waits_for_go_and_ends_on_sigterm(tmp_path: Path, clip: Path) -> None:
    async with serving() as (server, _, port):
        client = ClientProcess(
            tmp_path, clip, port, wait_for_go=True, start_after_s=0.2, stream_s=600
        )
        await client.start()
        await appears(tmp_path / "client-4.ready.json")
        await asyncio.sleep(0.3)
        assert not server.frames
        (tmp_path / "go").touch()
        await asyncio.wait_for(server.first.wait(), 20)
        assert client.process is not None
        client.process.send_signal(signal.SIGTERM)
        code, errors = await client.end(5)
    assert (code, errors) == (0, "")
    assert client.summary()["stopped"]
    assert 0 < len(client.rows()) < 12_000


async def appears(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.02)


async def test_killed_it_has_left_its_rows(tmp_path: Path, clip: Path) -> None:
    async with serving() as (server, _, port):
        client = ClientProcess(
            tmp_path, clip, port, trace={"mbps": [40], "step_s": 1}, stream_s=600
        )
        await client.start()
        async with asyncio.timeout(40):
            while len(server.frames) < 60:
                await asyncio.sleep(0.02)
        assert client.process is not None
        client.process.kill()
        await client.end()
        received = len(server.frames)
    assert recover(tmp_path)
    rows = client.rows()
    assert [row["frame"] for row in rows] == sorted(row["frame"] for row in rows)
    assert received >= len(rows) > received - 30  # a second is 20; machines are busy
    assert {row["outcome"] for row in rows} <= {"ok", "late"}
    assert {row["bandwidth_true_kbps"] for row in rows} == {40_000}
    found = read_coco(tmp_path / "client-4.detections.json")
    assert set(found) == {image_id(4, row["frame"]) for row in rows}
    assert not list(tmp_path.glob("*.jsonl"))


async def test_a_signal_to_its_group_ends_it_in_order(tmp_path: Path, clip: Path) -> None:
    async with serving() as (server, _, port):
        client = ClientProcess(tmp_path, clip, port, delay_ms=1, stream_s=600)
        await client.start(start_new_session=True)
        async with asyncio.timeout(40):
            while len(server.frames) < 20:
                await asyncio.sleep(0.02)
        assert client.process is not None
        os.killpg(client.process.pid, signal.SIGTERM)
        assert await client.end(10) == (0, "")
    summary = client.summary()
    assert summary["stopped"]
    assert summary["relay"]["bytes_up"] > 0
    assert len(client.rows()) == summary["frames"] == sum(summary["counts"].values()) > 0
    assert (tmp_path / "client-4.detections.json").exists()


async def test_a_full_disk_loses_one_file_and_not_the_stream(tmp_path: Path, clip: Path) -> None:
    async with serving() as (server, _, port):
        client = ClientProcess(tmp_path, clip, port, stream_s=3)
        await client.start()
        await asyncio.wait_for(server.first.wait(), 20)
        assert client.process is not None
        _, hard = resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (2000, hard))
        code, errors = await client.end()
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("client: ")
    assert "client-4.frames.parquet cannot be written" in last
    assert "client-4.json" not in last
    assert client.summary()["counts"]["ok"] > 40  # it has streamed to the end
    assert recover(tmp_path)
    assert 0 < len(client.rows()) < 60


@pytest.mark.parametrize("how", ["silent", "end", "stop"])
async def test_it_ends_when_the_server_is_gone(tmp_path: Path, clip: Path, how: str) -> None:
    relayed = {"delay_ms": 1} if how == "stop" else {}  # the relay must pass the end on
    async with serving("good" if how == "stop" else how) as (service, server, port):
        client = ClientProcess(
            tmp_path, clip, port, stream_s=600, give_up_s=0, in_flight_limit=1000, **relayed
        )
        await client.start()
        await asyncio.wait_for(service.first.wait(), 20)
        gone = time.monotonic()
        if how == "stop":
            await server.stop(0)
        code, errors = await client.end(10)
    assert time.monotonic() - gone < 5  # 3 s, and a busy machine
    assert code == 1
    assert "server" in errors
    assert len(errors.splitlines()) == 1
    rows = client.rows()
    assert client.summary()["gone"]
    assert {row["outcome"] for row in rows} <= {"ok", "late", "lost", "rejected"}
    if how != "stop":
        assert rows[-1]["outcome"] == "lost"
        assert rows[-1]["reason"].startswith("connection lost")


async def test_a_refusal_is_one_line(tmp_path: Path, clip: Path) -> None:
    async with serving("refuse") as (_, _, port):
        code, errors = await ClientProcess(tmp_path, clip, port).run()
    assert (code, len(errors.splitlines())) == (1, 1)
    assert "the server is full" in errors


@pytest.mark.parametrize("delay_ms", [0, 1])  # through a relay, too, whose name is another
async def test_tls_and_a_secret(tmp_path: Path, clip: Path, delay_ms: float) -> None:
    authority = Authority("test")
    signed, key = authority.issue("server", "localhost")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "secret").write_text("sesame\n")
    secure = {
        "tls_ca": str(tmp_path / "ca.pem"),
        "secret_file": str(tmp_path / "secret"),
        "delay_ms": delay_ms,
        "stream_s": 0.2,
    }
    async with serving(credentials=grpc.ssl_server_credentials([(key, signed)])) as (
        server,
        _,
        port,
    ):
        client = ClientProcess(tmp_path, clip, port, server=f"localhost:{port}", **secure)
        assert await client.run() == (0, "")
    assert server.authorization == "Bearer sesame"
    assert len(server.frames) == client.summary()["sent"] > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fpss": 3}, "unknown key 'fpss'"),
        ({"fps": 0}, "fps is 0"),
        ({"client": 1.5}, "client is 1.5"),
        ({"slo_ms": "fast"}, "slo_ms is 'fast'"),
        ({"server": "nowhere"}, "want HOST:PORT"),
        ({"policy": "bold"}, "no policy 'bold'"),
        ({"trace": {"mbps": [0], "step_s": 1}}, "carries 0 bits"),
        ({"trace": {"mbps": "fast", "step_s": 1}}, "could not convert"),
        ({"trace": {"mbps": [1]}}, "want mbps and step_s"),
        ({"source_ports": [9]}, "source_ports is [9]; want [first, last]"),
        ({"clip": None}, "clip is None; want name and path"),
        ({"clip": {"name": "clip", "path": "/missing.avi"}}, "/missing.avi is missing"),
        ({"tls_ca": "/missing.pem"}, "/missing.pem"),
        ({"tls_ca": __file__}, f"tls_ca: {__file__} holds no certificate"),
        ({"tls_ca": 5}, "tls_ca is 5; want a file, or null"),
        ({"tls_ca": __file__, "tls_cert": __file__}, "tls_cert and tls_key go together"),
        ({"tls_cert": __file__, "tls_key": __file__}, "tls_cert needs tls_ca"),
        ({"secret_file": __file__, "server": ["[::1]:1", "10.0.0.1:1"]}, "10.0.0.1:1 is not on"),
    ],
)
def test_a_bad_job_is_one_line(
    tmp_path: Path,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    says: str,
) -> None:
    ClientProcess(tmp_path, clip, 1, **changes)
    assert main(["--job", str(tmp_path / "job.json")]) == 1
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert says in errors


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_job_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    assert main(["--job", str(tmp_path / "job.json")]) == 1
    assert str(tmp_path / "job.json") in capsys.readouterr().err
