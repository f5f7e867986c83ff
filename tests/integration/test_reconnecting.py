"""Clients whose server dies, drains or is one of several: real processes, real gRPC."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from client.grpc_transport import GrpcTransport
from client.session import Session, SessionConfig, expected_ticks
from experiment.stored_source import StoredSource
from jellyfish.errors import RunError
from jellyfish.records import Outcome, Reason
from server.process import READY
from tests.served import served
from tests.simulated import ROOT, clip, emulated_job

FPS, SLO_MS = 15, 400


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Server:
    """`python -m server` as a child that can be killed and started again at its port."""

    def __init__(self, out: Path, **changes: Any) -> None:
        out.mkdir(exist_ok=True)
        self._out, self.port = out, free_port()
        self._job = emulated_job(out, port=self.port, **changes)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Return when it was ready."""
        (self._out / READY).unlink(missing_ok=True)
        command = (sys.executable, "-m", "server", "--job", str(self._job))
        with (self._out / "server.log").open("a") as log:
            self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=log)
        async with asyncio.timeout(60):
            while not (self._out / READY).exists():
                assert self._process.returncode is None, (self._out / "server.log").read_text()
                await asyncio.sleep(0.02)
        return asyncio.get_running_loop().time()

    def children(self) -> list[int]:
        assert self._process is not None
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    async def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()


@asynccontextmanager
async def serving(out: Path, **changes: Any) -> AsyncIterator[Server]:
    server = Server(out, **changes)
    try:
        await server.start()
        yield server
    finally:
        await server.end()


def session(number: int, stream_s: float, *ports: int, **changes: Any) -> Session:
    config = SessionConfig(
        client=number,
        name=f"client-{number}",
        fps=FPS,
        slo_ms=SLO_MS,
        stream_s=stream_s,
        **changes,
    )
    transport = GrpcTransport([f"127.0.0.1:{port}" for port in ports])
    return Session(config, transport, StoredSource("clip", clip()), Random(number))


def check_rows(client: Session, stream_s: float) -> None:
    assert [row.frame for row in client.rows] == list(range(expected_ticks(stream_s, FPS)))


def first_ok_s(client: Session, since_s: float) -> float:
    """Return how long after `since_s` the first frame was answered in time."""
    answered = [row.received_s for row in client.rows if row.outcome is Outcome.OK]
    return min(at_s for at_s in answered if at_s > since_s) - since_s


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_a_server_that_is_killed_and_started_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        clients = [session(number, 600, server.port) for number in range(2)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
            await until(lambda: all(client.counts()["ok"] > 10 for client in clients))
            children = server.children()
            assert len(children) == 2  # a worker and the planner
            await server.end()
            await until(lambda: all(gone(pid) for pid in children))
            ready_s = await server.start()
            await until(
                lambda: all(
                    row.outcome is Outcome.OK for client in clients for row in client.rows[-12:-8]
                )
            )
            for client in clients:
                client.stop()
    for client in clients:
        assert client.reconnects == 1
        assert first_ok_s(client, ready_s) < 2 + 1  # a busy machine
        reasons = {row.reason.partition(":")[0] for row in client.rows}
        assert {Reason.NO_CONNECTION, Reason.CONNECTION_LOST} & reasons
        assert [row.frame for row in client.rows] == list(range(len(client.rows)))


async def test_a_client_goes_on_to_the_next_server_when_one_drains(tmp_path: Path) -> None:
    async with serving(tmp_path / "first") as first, serving(tmp_path / "second") as second:
        client = session(0, 8.0, first.port, second.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(client.run())
            await until(lambda: client.counts()["ok"] > 10)
            await first.end(signal.SIGTERM)
            ended_s = asyncio.get_running_loop().time()
    check_rows(client, 8.0)
    assert client.reconnects == 1
    assert not client.gone
    assert first_ok_s(client, ended_s) < 2


async def test_the_first_connection_may_be_to_any_of_the_servers(tmp_path: Path) -> None:
    full, free = serving(tmp_path / "full", max_clients=1), serving(tmp_path / "free")
    async with full as first, free as second, asyncio.TaskGroup() as group:
        keeps = session(0, 6.0, first.port)
        goes_on = session(1, 2.0, free_port(), first.port, second.port)
        group.create_task(keeps.run())
        await until(lambda: keeps.counts()["ok"])
        await goes_on.run()
        keeps.stop()
    check_rows(goes_on, 2.0)
    assert goes_on.counts()["ok"] > 20
    assert not goes_on.reconnects


async def test_a_client_gives_up_when_told_to(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        client = session(0, 600, server.port, give_up_s=1.0)
        running = asyncio.create_task(client.run())
        await until(lambda: client.counts()["ok"] > 5)
        killed_s = time.monotonic()
        await server.end()
        await running
        assert 1 <= time.monotonic() - killed_s < 10
    assert f"no server answers at 127.0.0.1:{server.port}" in client.gone
    assert client.rows[-1].reason == Reason.NO_CONNECTION


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Leave garbage where it is: a task that nobody can wake is some, sooner or later."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_a_connection_that_is_lost_leaves_no_task_behind(tmp_path: Path) -> None:
    """gRPC reads frames to send in a task, which it does not end when the server ends the call."""
    port = free_port()
    transport = GrpcTransport([f"127.0.0.1:{port}"])
    async with served(tmp_path / "first", port=port):
        await transport.connect()
        await transport.register("a", FPS, SLO_MS)
    with pytest.raises(RunError):
        await _listen(transport)
    async with served(tmp_path / "second", port=port):
        await transport.connect()
        assert not await transport.resume()
        await transport.register("a", FPS, SLO_MS)
        await transport.close()
    async with asyncio.timeout(5):
        while any("_consume_request_iterator" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)


async def _listen(transport: GrpcTransport) -> None:
    while True:
        await transport.receive()
