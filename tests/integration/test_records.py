"""What real processes leave on disk: killed, told to end with their group, and on a full disk."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from experiment.collect import recover
from jellyfish.files.atomic import read_json
from jellyfish.files.journal import read_lines
from jellyfish.files.tables import read_table
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from tests.simulated import emulated_job

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60


def job_of(folder: Path) -> Path:
    """Write the job of a server with one emulated worker, which starts quickly."""
    (folder / "out").mkdir()
    return emulated_job(folder, out_dir=str(folder / "out"))


class Server:
    """`python -m server` in a process group of its own; its stderr is a pipe."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path, stderr: int) -> None:
        self.process, self.out = process, out
        self.stderr = os.fdopen(stderr, "rb")
        self.said: asyncio.Task[bytes] | None = None

    @property
    def port(self) -> int:
        return int(read_json(self.out / "server.ready.json")["port"])

    def read_stderr(self) -> None:
        self.said = asyncio.create_task(asyncio.to_thread(self.stderr.read))

    async def ended(self) -> tuple[int, str]:
        """Return its exit code and what it said."""
        code = await asyncio.wait_for(self.process.wait(), 30)
        return code, "" if self.said is None else (await self.said).decode()


@asynccontextmanager
async def serving(folder: Path, read: bool = True) -> AsyncIterator[Server]:
    job = job_of(folder)
    ours, theirs = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "--job", str(job)),
        cwd=ROOT,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    server = Server(process, folder / "out", ours)
    if read:
        server.read_stderr()
    try:
        await until(lambda: (server.out / "server.ready.json").exists())
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if server.said is not None:
            await server.said
        server.stderr.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_S):
        while not holds():
            await asyncio.sleep(0.02)


class Camera:
    """Sends frames at a rate, and counts what comes back."""

    def __init__(self, stub: Any, name: str) -> None:
        self.stub, self.name, self.sent = stub, name, 0
        self.answers: list[Any] = []
        self.call: Any = None
        self.listening: asyncio.Task[None] | None = None

    async def join(self, slo_ms: float = 2000) -> Camera:
        request = pb.RegisterRequest(name=self.name, fps=20, slo_ms=slo_ms)
        joined = await self.stub.Register(request)
        self.call = self.stub.Stream(metadata=[("jellyfish-token", joined.token)])
        self.listening = asyncio.create_task(self.listen())
        return self

    async def listen(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while (message := await self.call.read()) is not grpc.aio.EOF:
                if message.WhichOneof("kind") == "result":
                    self.answers.append(message.result)

    async def send(self) -> None:
        frame = pb.Frame(
            id=self.sent, tag=b"clip:1", image=bytes(7000), px=128, bandwidth_kbps=50_000
        )
        self.sent += 1
        await self.call.write(frame)

    async def stream(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            await self.send()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def stub_of(server: Server) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield JellyfishStub(channel)


async def test_a_killed_server_has_lost_a_second_at_most(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, stub_of(server) as stub:
        stays = await Camera(stub, "stays").join()
        goes = await Camera(stub, "goes").join()
        await goes.stream(0.5)
        await goes.call.done_writing()
        lines = server.out / "server.clients.jsonl"
        await until(lambda: lines.exists() and lines.stat().st_size > 0)
        await stays.stream(3)
        rows = sum(1 for _ in read_lines(server.out / "server.plans.jsonl"))
        server.process.kill()
        killed_s = time.monotonic()
        await server.ended()
    assert recover(server.out)
    plans = read_table(server.out / "plans.parquet").to_pydict()
    assert len(plans["time_s"]) >= rows > 3
    assert killed_s - plans["time_s"][-1] < 4  # 1 s, half a second between plans, a busy machine
    report = read_json(server.out / "server.json")
    assert report["plans"] > 0
    assert report["clients"]["goes"]["received"] == goes.sent
    assert 0 < report["clients"]["stays"]["received"] <= stays.sent
    assert sorted(path.name for path in server.out.iterdir()) == [
        "plans.parquet",
        "server.json",
        "server.ready.json",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_whole_group_loses_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with serving(tmp_path) as server, stub_of(server) as stub:
        camera = await Camera(stub, "a").join()
        await camera.stream(1)
        for _ in range(12):
            await camera.send()
        assert camera.listening is not None
        await until(lambda: len(camera.answers) >= camera.sent - 11)  # the rest is under way
        os.killpg(server.process.pid, number)
        code, said = await server.ended()
        await camera.listening
        assert code == 0, said
        assert "died" not in said
        answers = [answer.outcome for answer in camera.answers]
        assert len(answers) == camera.sent
        assert set(answers) == {pb.OUTCOME_OK}
    assert read_json(server.out / "server.json")["clients"]["a"]["ok"] == camera.sent
    assert len(read_table(server.out / "plans.parquet")) > 0


async def test_a_log_that_nobody_reads_costs_lines(tmp_path: Path) -> None:
    async with serving(tmp_path, read=False) as server, stub_of(server) as stub:
        for _ in range(200):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Register(
                    pb.RegisterRequest(name="\x01" * 200, fps=-1, slo_ms=500), timeout=20
                )
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        camera = await Camera(stub, "a").join()
        await camera.stream(0.5)
        await until(lambda: len(camera.answers) == camera.sent)
        server.process.terminate()
        assert (await server.ended())[0] == 0
    assert read_json(server.out / "server.json")["clients"]["a"]["ok"] == camera.sent


async def test_a_name_forges_no_line(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, stub_of(server) as stub:
        camera = Camera(stub, "x\n2026-01-01 00:00:00,000 INFO server.engine: forged")
        await camera.join()
        await camera.send()
        await until(lambda: len(camera.answers) == 1)
        server.process.terminate()
        code, said = await server.ended()
    assert code == 0
    assert "forged" in said
    assert not any(line.startswith("2026-01-01") for line in said.splitlines())


def limit_files(pid: int, size: int) -> None:
    """Let the process write no file beyond `size` bytes: what it writes there fails."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


async def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, stub_of(server) as stub:
        camera = await Camera(stub, "a").join()
        await camera.stream(1)
        limit_files(server.process.pid, 100)  # less than a row
        await camera.stream(3)
        limit_files(server.process.pid, resource.RLIM_INFINITY)
        await camera.stream(2)
        await until(lambda: len(camera.answers) == camera.sent)
        server.process.terminate()
        code, said = await server.ended()
    assert code == 0, said
    assert said.count("server.plans.jsonl cannot be written, and is tried again: File too") == 1
    assert said.count("server.plans.jsonl is written again; 0 records were dropped") == 1
    report = read_json(server.out / "server.json")
    plans = read_table(server.out / "plans.parquet").to_pydict()
    assert len(plans["time_s"]) == report["plans"]
    assert report["clients"]["a"]["ok"] == camera.sent


async def test_a_full_disk_at_the_end_loses_one_file(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, stub_of(server) as stub:
        camera = await Camera(stub, "a").join()
        await camera.stream(1)
        await asyncio.sleep(1.5)  # the rows are on disk
        limit_files(server.process.pid, 1500)  # enough for server.json
        server.process.terminate()
        code, said = await server.ended()
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"server: {server.out / 'plans.parquet'} cannot be written: ")
    assert "server.json" not in last
    report = read_json(server.out / "server.json")
    assert report["clients"]["a"]["received"] == camera.sent
    assert recover(server.out)  # once there is room
    assert 0 < len(read_table(server.out / "plans.parquet")) <= report["plans"]
    assert not list(server.out.glob("*.jsonl"))
