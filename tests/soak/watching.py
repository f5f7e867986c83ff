"""What is seen from outside while a soak runs: health, a probe, memory, files, threads, bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.grpc_transport import GrpcTransport
from jellyfish.errors import JellyfishError
from jellyfish.messages import Answer, Frame
from jellyfish.records import Outcome
from tests.soak.life import Life, tasks_file
from tests.soak.material import INPUT_PX, frames

EVERY_S = 1.0
PROBE_SLO_MS, PATIENCE_S = 500.0, 0.9  # a server may use all of an SLO to fill a batch
STALL_S = 0.1  # this process itself is late by so much: the machine was busy elsewhere
TICK_S = 0.05
OTHERS, WAITED = 0.5, 1.0  # cores that others take, threads of the soak that wait for one


class Probed(NamedTuple):
    """What health said, and whether a frame was served, at `time_s`."""

    time_s: float
    serving: bool
    served: bool
    why: str


class Probe:
    """A client that sends a frame a second, and asks for the server's health."""

    def __init__(self, port: int) -> None:
        self.seen: list[Probed] = []
        self._transport = GrpcTransport([f"127.0.0.1:{port}"])
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_reconnect_backoff_ms", 500),
                ("grpc.initial_reconnect_backoff_ms", 200),
            ],
        )
        self._image, self._number, self._up, self._known = frames(INPUT_PX[0])[0], 0, False, False

    async def run(self) -> None:
        """Probe for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                at_s = loop.time()
                serving, why = await asyncio.gather(self._serving(), self._serve())
                self.seen.append(Probed(at_s, serving, not why, why))
                await asyncio.sleep(max(0.0, at_s + EVERY_S - loop.time()))
        finally:
            with suppress(JellyfishError):
                await self._transport.close()
            await self._channel.close(None)

    async def _serving(self) -> bool:
        stub = health_pb2_grpc.HealthStub(self._channel)
        try:
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def _serve(self) -> str:
        """Have a frame served; return why it was not, if so."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._connected()
                return await self._answered()
        except TimeoutError:
            self._up = False
            return f"no answer within {PATIENCE_S:g} s"
        except JellyfishError as error:
            self._up = False
            return str(error)

    async def _connected(self) -> None:
        if self._up:
            return
        await self._transport.connect()
        if not (self._known and await self._transport.resume()):
            await self._transport.register("probe", 2.0, PROBE_SLO_MS)
        self._up = self._known = True

    async def _answered(self) -> str:
        number, self._number = self._number, self._number + 1
        frame = Frame(number, b"clip:0", self._image, INPUT_PX[0], 50_000.0, 1.0)
        self._transport.send(frame)
        while True:
            event = (await self._transport.receive()).event
            if isinstance(event, Answer) and event.id == number:
                return "" if event.outcome is Outcome.OK else f"{event.outcome}: {event.reason}"


@dataclass(frozen=True)
class Sample:
    """What processes take. Server: the process itself; all: its workers and planner, too."""

    time_s: float
    life: int
    server_mb: float
    all_mb: float
    files: int
    threads: int
    children: int
    load_mb: float
    load_files: int
    load_threads: int
    tasks: int  # of asyncio, in the server
    load_tasks: int
    log_bytes: int  # of all servers so far
    record_bytes: int
    waited_s: float  # for a core: all of the above, since the sample before
    others_s: float  # of cores that others than this soak took, since then


class Sampler:
    """Takes a sample a second.

    Args:
        lives: all servers so far; the last one is sampled.
        load: process of the honest clients.
        load_log: what it writes.
    """

    def __init__(self, lives: list[Life], load: Callable[[], int], load_log: Path) -> None:
        self.samples: list[Sample] = []
        self._lives, self._load, self._load_log = lives, load, load_log
        self._took: tuple[float, float] | None = None  # core time ever: everybody, and this soak
        self._waits: dict[int, float] = {}  # of each process, ever
        self._written: dict[int, tuple[int, int]] = {}  # by each server: log and records

    async def run(self) -> None:
        """Sample for ever; while a process is not there, nothing is taken down."""
        while True:
            with suppress(psutil.Error, FileNotFoundError):
                self.samples.append(self._sample())
            await asyncio.sleep(EVERY_S)

    def _sample(self) -> Sample:
        server, load = psutil.Process(self._lives[-1].process.pid), psutil.Process(self._load())
        children = [child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
        mine, written = _mb(server), self._written
        for number, life in enumerate(self._lives):
            records = sum(map(_size, life.out.glob("*.jsonl")))  # which become tables at its end
            written[number] = _size(life.log), max(records, written.get(number, (0, 0))[1])
        return Sample(
            time_s=asyncio.get_running_loop().time(),
            life=len(self._lives) - 1,
            server_mb=mine,
            all_mb=mine + sum(map(_mb, children)),
            files=server.num_fds(),
            threads=server.num_threads(),
            children=len(children),
            load_mb=_mb(load),
            load_files=load.num_fds(),
            load_threads=load.num_threads(),
            tasks=_tasks(self._lives[-1].log),
            load_tasks=_tasks(self._load_log),
            log_bytes=sum(log for log, _ in written.values()),
            record_bytes=sum(records for _, records in written.values()),
            waited_s=self._waited_s([server, load, *children]),
            others_s=self._others_s(),
        )

    def _waited_s(self, processes: Sequence[psutil.Process]) -> float:
        now = {process.pid: waits_s(process.pid) for process in processes}
        before, self._waits = self._waits, now
        return sum(max(0.0, now[pid] - before.get(pid, now[pid])) for pid in now)

    def _others_s(self) -> float:
        machine, mine, before = psutil.cpu_times(), psutil.Process(), self._took
        busy_s = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
        self._took = busy_s, sum(map(_cpu_s, [mine, *mine.children(recursive=True)]))
        if before is None:
            return 0.0
        return max(0.0, self._took[0] - before[0] - max(0.0, self._took[1] - before[1]))


def _cpu_s(process: psutil.Process) -> float:
    """Return the core time of a process and of its children that have ended."""
    with suppress(psutil.Error):
        return float(sum(process.cpu_times()[:4]))
    return 0.0


def _tasks(log: Path) -> int:
    path = tasks_file(log)
    return int(path.read_text() or 0) if path.exists() else 0


def waits_s(pid: int) -> float:
    """Return for how long all threads of a process have been ready and had no core."""
    waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def _mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Stalls:
    """Notes when this very process was late: what is measured then says little."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []  # when, and for how long

    async def run(self) -> None:
        """Watch for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            late_s = loop.time() - due_s
            if late_s > STALL_S:
                self.seen.append((due_s, late_s))

    def within(self, first_s: float, last_s: float) -> float:
        """Return for how long in all it was late in [first_s, last_s)."""
        return sum(late_s for at_s, late_s in self.seen if first_s <= at_s < last_s)


def starved_s(samples: Sequence[Sample], first_s: float, last_s: float) -> float:
    """Return for how long in [first_s, last_s) others kept the soak's processes from the cores."""
    spans = (
        later.time_s - sample.time_s
        for sample, later in pairwise(samples)
        if first_s <= later.time_s
        and sample.time_s < last_s
        and later.others_s > OTHERS * (later.time_s - sample.time_s)
        and later.waited_s > WAITED * (later.time_s - sample.time_s)
    )
    return sum(spans)
