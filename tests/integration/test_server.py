"""The server as a process: start, real workers, planner and device, faults, end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from experiment.authority import Authority
from jellyfish.files.atomic import write_json
from jellyfish.files.profiles import write_profile
from jellyfish.files.tables import read_table
from jellyfish.profile import Profile
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from server.__main__ import main
from server.process import READY
from server.zoo.onnx_export import export
from tests.served import served
from tests.zoo_models import MIXED, ROOT, jpegs, write_mixed_weights

READY_S = 60
NAME = "jellyfish.v1.Jellyfish"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    weights = write_mixed_weights(folder / "mixed.weights")
    export(MIXED.cfg, weights, folder / "model.onnx")
    dnns = len(MIXED.input_px)
    profile = Profile(
        input_px=MIXED.input_px,
        frame_bytes=[1000.0 * (m + 1) for m in range(dnns)],
        accuracy=[0.5 + 0.1 * m for m in range(dnns)],
        latency_ms=[[10.0 + 5 * m, 15.0 + 5 * m] for m in range(dnns)],
    )
    write_profile(folder / "profile.json", profile)
    return folder


def job_of(model: Path, out: Path, /, **changes: Any) -> Path:
    job: dict[str, Any] = {
        "zoo": str(ROOT / "tests" / "data" / "zoo" / "mixed.yaml"),
        "profile": str(model / "profile.json"),
        "model": {"onnx": str(model / "model.onnx")},
        "devices": [{"kind": "onnxruntime", "cores": sorted(os.sched_getaffinity(0))[-1:]}],
        "out_dir": str(out),
        **changes,
    }
    path = out / "server.job.json"
    path.write_text(json.dumps({k: v for k, v in job.items() if v is not ...}))
    return path


@dataclass
class Running:
    process: asyncio.subprocess.Process
    port: int
    log: Path

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def workers(self) -> list[int]:
        return [pid for pid in self.children() if "worker" in _command(pid)]

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), 5)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


async def start(job: Path) -> tuple[asyncio.subprocess.Process, Path]:
    log = job.parent / "server.log"
    with log.open("w") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "--job", str(job), cwd=ROOT, stdout=sink, stderr=sink
        )
    return process, log


@asynccontextmanager
async def serving(job: Path) -> AsyncIterator[Running]:
    process, log = await start(job)
    ready = job.parent / "server.ready.json"
    try:
        async with asyncio.timeout(READY_S):
            while not ready.exists():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        said = json.loads(ready.read_text())
        assert said["pid"] == process.pid
        yield Running(process, said["port"], log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Client:
    """A plain client of the generated stubs."""

    def __init__(self, channel: grpc.aio.Channel, secret: str = "") -> None:
        self.stub: Any = JellyfishStub(channel)
        self.metadata = [("authorization", f"Bearer {secret}")] if secret else []
        self.call: Any = None

    async def join(self, name: str = "a", fps: float = 20, slo_ms: float = 2000) -> Client:
        request = pb.RegisterRequest(name=name, fps=fps, slo_ms=slo_ms)
        response = await self.stub.Register(request, metadata=self.metadata)
        metadata = [*self.metadata, ("jellyfish-token", response.token)]
        self.call = self.stub.Stream(metadata=metadata)
        return self

    async def asks(self, frame_id: int, image: bytes) -> Any:
        frame = pb.Frame(id=frame_id, tag=b"0:0", image=image, px=96, bandwidth_kbps=50_000)
        await self.call.write(frame)
        async with asyncio.timeout(20):
            while True:
                message = await self.call.read()
                assert message is not grpc.aio.EOF
                if message.WhichOneof("kind") == "result":
                    assert message.result.id == frame_id
                    return message.result


@pytest.fixture(scope="module")
def image() -> bytes:
    noise = np.random.default_rng(1).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    return jpegs([noise], 96)[0].image


async def health(channel: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return int(response.status)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_serves_and_ends_in_order(model: Path, image: bytes, tmp_path: Path) -> None:
    job = job_of(model, tmp_path, reflection=True)
    async with serving(job) as server, server.channel() as channel:
        serving_now = health_pb2.HealthCheckResponse.SERVING
        assert await health(channel, "") == serving_now
        assert await health(channel, NAME) == serving_now
        listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        found = await listing.read()
        assert NAME in {s.name for s in found.list_services_response.service}
        client = await Client(channel).join()
        for k in range(20):
            result = await client.asks(k, image)
            assert result.outcome == pb.OUTCOME_OK, result
            assert result.dnn_px in MIXED.input_px
            assert result.stages.execute_ms > 0
        assert (await client.asks(20, b"no jpeg")).outcome == pb.OUTCOME_ERROR
        assert (await client.asks(21, image)).outcome == pb.OUTCOME_OK
        children = server.children()
        assert len(children) == 2  # a worker and the planner
        assert await server.end() == 0
    assert all(gone(pid) for pid in children)
    report = json.loads((tmp_path / "server.json").read_text())
    counts = report["clients"]["a"]
    assert (counts["received"], counts["ok"], counts["error"]) == (22, 21, 1)
    plans = read_table(tmp_path / "plans.parquet")
    assert plans.num_rows == report["plans"] > 0
    assert plans.column("mapping").to_pylist()[-1] == [0]


async def test_a_killed_worker_is_noticed_and_replaced(
    model: Path, image: bytes, tmp_path: Path
) -> None:
    async with serving(job_of(model, tmp_path)) as server, server.channel() as channel:
        client = await Client(channel).join()
        assert (await client.asks(0, image)).outcome == pb.OUTCOME_OK
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        outcomes, reasons = [], set()
        async with asyncio.timeout(READY_S):
            while not outcomes or outcomes[-1] != pb.OUTCOME_OK:
                result = await client.asks(len(outcomes) + 1, image)
                outcomes.append(result.outcome)
                reasons.add(result.reason)
                await asyncio.sleep(0.05)
        assert pb.OUTCOME_ERROR in outcomes
        assert "worker died" in reasons
        assert await health(channel, "") == health_pb2.HealthCheckResponse.SERVING
        assert server.workers() != [worker]
        assert await server.end() == 0
    assert json.loads((tmp_path / "server.json").read_text())["worker_restarts"] == [1]


async def test_an_interrupt_under_load_answers_what_waits_and_ends(
    model: Path, image: bytes, tmp_path: Path
) -> None:
    async with serving(job_of(model, tmp_path)) as server, server.channel() as channel:
        client = await Client(channel).join(fps=30, slo_ms=500)
        sent, answered, pouring_on = 0, 0, True

        async def pour() -> None:
            nonlocal sent
            while pouring_on:
                await client.call.write(
                    pb.Frame(id=sent, tag=b"", image=image, px=96, bandwidth_kbps=50_000)
                )
                sent += 1
                await asyncio.sleep(0.01)

        async def listen() -> None:
            nonlocal answered
            with suppress(grpc.aio.AioRpcError):
                while True:
                    answered += (await client.call.read()).WhichOneof("kind") == "result"

        pouring, listening = asyncio.create_task(pour()), asyncio.create_task(listen())
        await asyncio.sleep(1)
        pouring_on = False  # a write into a call that has ended hides the call's own end
        await pouring
        assert await server.end(signal.SIGINT) == 0
        await listening
        assert await client.call.details() == "server stopping"
    counts = json.loads((tmp_path / "server.json").read_text())["clients"]["a"]
    assert answered == counts["received"] - counts["abandoned"]
    assert counts["ok"] > 0
    assert counts["received"] == sum(counts[k] for k in counts if k not in {"client", "received"})


async def test_interrupted_at_its_start_it_ends_and_leaves_nothing(
    model: Path, tmp_path: Path
) -> None:
    process, log = await start(job_of(model, tmp_path))
    running = Running(process, 0, log)
    async with asyncio.timeout(READY_S):
        while not running.workers():
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.005)
    workers = running.workers()
    assert await running.end() == 0
    assert all(gone(pid) for pid in workers)


async def test_tls_and_a_secret(model: Path, image: bytes, tmp_path: Path) -> None:
    authority = Authority("test")
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    for path, content in zip((certificate, key), authority.issue("a", "localhost"), strict=True):
        path.write_bytes(content)
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    job = job_of(
        model,
        tmp_path,
        host="0.0.0.0",
        tls_cert=str(certificate),
        tls_key=str(key),
        secret_file=str(secret),
    )
    async with serving(job) as server:
        credentials = grpc.ssl_channel_credentials(authority.pem)
        target = f"localhost:{server.port}"
        async with grpc.aio.secure_channel(target, credentials) as channel:
            for wrong in ("", "open barley"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await Client(channel, wrong).join()
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            client = await Client(channel, "open sesame").join()
            assert (await client.asks(0, image)).outcome == pb.OUTCOME_OK
        assert await server.end() == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"surprise": 1}, "unknown key surprise"),
        ({"profile": ...}, "profile is missing"),
        ({"profile": "/nowhere/profile.json"}, "/nowhere/profile.json is missing"),
        ({"zoo": "/nowhere/zoo.yaml"}, "/nowhere/zoo.yaml"),
        ({"model": {"onnx": "/nowhere/model.onnx"}}, "no file /nowhere/model.onnx"),
        ({"model": "model.onnx"}, "model is 'model.onnx'"),
        ({"policy": "cleverest"}, "there are: paper, jellyfish"),
        ({"devices": []}, "devices is []"),
        ({"devices": [{"kind": "abacus"}]}, "abacus"),
        ({"plan_interval_s": 0}, "plan_interval_s is 0"),
        ({"port": 70000}, "port is 70000"),
        ({"cached_dnns": 1.5}, "cached_dnns is 1.5"),
        ({"tls_cert": "/nowhere/cert.pem"}, "tls_key"),
        ({"secret_file": "/nowhere/secret"}, "/nowhere/secret cannot be read"),
        ({"tls_client_ca": "/nowhere/ca.pem"}, "tls_client_ca needs tls_cert and tls_key"),
        ({"tls_cert": __file__, "tls_key": "/nowhere/key"}, f"{__file__} holds no certificate"),
        ({"secret_file": __file__, "host": "0.0.0.0"}, "host '0.0.0.0' is not loopback"),
        ({"secret_file": __file__}, "more than one line of printable ASCII"),
        ({"reflection": "yes"}, "reflection is 'yes'"),
    ],
)
def test_a_bad_job_gives_one_line_and_exit_code_1(
    changes: dict[str, Any],
    says: str,
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["--job", str(job_of(model, tmp_path, **changes))]) == 1
    lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("server: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "server.ready.json").exists()


def test_a_busy_port_is_named(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--job", str(job_of(model, tmp_path, port=port))]) == 1
    assert f"cannot listen at 127.0.0.1:{port}: the port is busy" in capfd.readouterr().err


def test_no_job_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--job", str(tmp_path / "none.json")]) == 1
    assert "none.json is missing" in capfd.readouterr().err


async def test_weights_cut_short_stop_the_start(model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.onnx"
    short.write_bytes((model / "model.onnx").read_bytes()[:2000])
    process, log = await start(job_of(model, tmp_path, model={"onnx": str(short)}))
    assert await asyncio.wait_for(process.wait(), READY_S) == 1
    assert log.read_text().splitlines()[-1].startswith("server: ")
    assert "short.onnx" in log.read_text().splitlines()[-1]


async def test_a_disk_that_is_full_at_the_start_costs_the_file_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.process.RETRY_S", 0.05)
    tries: list[Path] = []

    def write_later(path: Path, value: Any) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    monkeypatch.setattr("server.process.write_json", write_later)
    async with served(tmp_path / "out") as port:
        assert port > 0
    assert tries == [tmp_path / "out" / READY] * 3
