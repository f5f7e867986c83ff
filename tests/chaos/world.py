"""One seed's world: the real service, engine, workers, planner and sessions on simulated ground."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from random import Random
from typing import Any

import grpc

from client.grpc_transport import GrpcTransport
from client.session import Session, SessionConfig
from client.source import SourceFrame
from experiment.virtual_time import VirtualTimeLoop
from jellyfish.charges import derived_seed
from jellyfish.errors import JellyfishError
from jellyfish.files.zoo import read_zoo
from jellyfish.policy import policy
from jellyfish.profile import Profile
from jellyfish.records import FrameRow
from jellyfish.trace import Trace
from server.clients import ClientHandle
from server.devices.base import DeviceSpec
from server.engine import Engine
from server.limits import Limits
from server.planner import ProcessPlanner
from server.service import Service
from server.settings import EngineConfig
from server.worker_process import ProcessWorker
from tests.chaos.channel import Network, Server
from tests.chaos.children import Host
from tests.chaos.disk import Disk
from tests.chaos.faults import EVERYWHERE, Fault, Scenario
from tests.chaos.images import jpeg
from tests.chaos.link import Link
from tests.chaos.logs import SimStderr
from tests.chaos.records import ClientRecords, ServerRecords
from tests.chaos.spies import EngineSpy

ROOT = Path(__file__).resolve().parents[2]
INPUT_PX = (128, 224, 320, 416)
COSTS = (1.0, 1.3, 1.9, 2.7)  # of the DNNs at batch 1, in those of the smallest
MAX_BATCH = 6
CLIP_FRAMES = 5
DRAIN_S, FLUSH_S, STREAMS_S = 1.5, 0.5, 0.5  # as server.process ends
KEEPER_S = 1.0  # until a server that could not start is started again
END_S = 0.0  # for a server's files, once nobody is served; tests.soak.compare measures it
RESTART_S = 0.3  # between the end of a server and the start of the next
DELAY_S = 0.002  # of every link, one way
RECORDED = 0  # the client whose records are written: one shows as much as all
START_TIMEOUT_S = 4.0  # for a simulated worker that takes half a second
CONFIG = EngineConfig(
    cached_dnns=2, max_clients=64, load_timeout_s=START_TIMEOUT_S, check_images=True
)


def profile_of(latency_ms: float) -> Profile:
    """Return a profile whose smallest DNN takes so long at batch 1; half of it is fixed."""
    return Profile(
        input_px=INPUT_PX,
        frame_bytes=[float(len(jpeg(px, 0))) for px in INPUT_PX],
        accuracy=[0.3, 0.42, 0.5, 0.56],
        latency_ms=[
            [latency_ms * cost * (0.5 + 0.5 * b) for b in range(1, MAX_BATCH + 1)] for cost in COSTS
        ],
    )


class Source:
    """Five JPEGs of every size, looped; see client.source.Source."""

    def start(self) -> None:
        pass

    def clip_frame(self, k: int) -> int:
        return k % CLIP_FRAMES

    def frame(self, k: int, px: int) -> SourceFrame:
        number = k % CLIP_FRAMES
        return SourceFrame(b"clip:%d" % number, jpeg(px, number), number)

    def close(self) -> None:
        pass


@dataclass
class Struck:
    """What came of a fault."""

    fault: Fault
    state: str = ""
    hits: int = 0
    provoked: bool = False  # something was ended to bring its state about
    struck_s: float = float("inf")
    healed_s: float = float("inf")

    def hit(self) -> None:
        self.hits += 1


@dataclass
class Serving:
    """One life of the server."""

    engine: Engine
    service: Service
    listener: Server
    spy: EngineSpy
    health: list[tuple[float, bool]]
    books: list[dict[str, Any]]  # of clients that have left
    records: ServerRecords
    started_s: float
    ready_s: float = float("inf")
    stopping_s: float = float("inf")
    ended_s: float = float("inf")
    killed: bool = False


@dataclass
class Streamed:
    """One honest client's run."""

    rows: list[FrameRow]
    ended_s: float = float("inf")
    error: str = ""
    gone: str = ""


class World:
    """Everything that a scenario names, on the running loop."""

    def __init__(self, scenario: Scenario) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.scenario, self.loop = scenario, loop
        self.rng = Random(derived_seed(scenario.seed, "world"))
        self.profile = profile_of(scenario.latency_ms)
        self.limits = Limits.of(self.profile, CONFIG.max_clients)
        self.network = Network(loop, self.limits.message_bytes)
        rng = Random(derived_seed(scenario.seed, "host"))
        self.host = Host(loop, rng, self.profile, *scenario.jitter)
        self.disk = Disk(Random(derived_seed(scenario.seed, "disk")))
        self.servings: list[Serving] = []
        self.struck: list[Struck] = []
        self.streamed: list[Streamed] = []
        self.record_problems: list[str] = []  # of clients
        self.problems: list[str] = []  # what no check would see otherwise
        self.stalls: list[tuple[float, float]] = []
        self.log = SimStderr(self)
        self.wall_offset_s = 0.0
        self.clock_readers: set[str] = set()  # of the wall clock
        self.left: list[str] = []  # after the end
        self.lock = asyncio.Lock()  # one start or end of the server at a time
        for i, client in enumerate(scenario.clients):
            self.add_link(f"client-{i}", Trace(f"link {i}", client.mbps, client.step_s))
        loop.set_exception_handler(self._on_exception)

    def _on_exception(self, _: Any, context: dict[str, Any]) -> None:
        self.problems.append(f"unhandled: {context.get('exception') or context['message']!r}")

    def add_link(self, name: str, trace: Trace) -> Link:
        link = self.network.links[name] = Link(self.loop, trace, DELAY_S)
        return link

    # --- the server

    @property
    def untouched(self) -> list[str]:
        """The workers that no fault has to do with."""
        touched = {fault.target for fault in self.scenario.faults}
        every = {f"gpu:{EVERYWHERE}"} & touched
        numbers = range(0 if every else self.scenario.gpus)
        return [f"worker-{n}" for n in numbers if f"gpu:{n}" not in touched]

    @property
    def serving(self) -> Serving:
        return self.servings[-1]

    async def start_server(self) -> None:
        """Start a server; one that cannot start is started again, as its keeper would."""
        while not await self._started(self._new_server()):
            await asyncio.sleep(KEEPER_S)

    async def _started(self, serving: Serving) -> bool:
        self.servings.append(serving)
        try:
            await serving.engine.start()
        except JellyfishError as error:
            serving.ended_s = self.loop.time()
            await serving.records.end(serving.engine)
            if self.untouched:
                self.problems.append(f"no start in spite of {self.untouched[0]}: {error!r}")
            return False
        serving.ready_s = self.loop.time()
        self.network.server = serving.listener
        serving.records.keep(serving.engine)
        return True

    def _new_server(self) -> Serving:
        number = len(self.servings)
        specs = [_spec(i) for i in range(self.scenario.gpus)]
        workers = [
            ProcessWorker(spec, f"worker-{i}", launch=self.host.launch)
            for i, spec in enumerate(specs)
        ]
        planner = ProcessPlanner("jellyfish", launch=self.host.launch)
        health: list[tuple[float, bool]] = []
        books: list[dict[str, Any]] = []
        records = ServerRecords(self.disk, self.stalls)
        engine = Engine(
            self.profile,
            workers,
            planner,
            policy("jellyfish"),
            Random(derived_seed(self.scenario.seed, f"engine {number}")),
            CONFIG,
            lambda healthy: health.append((self.loop.time(), healthy)),
            records.on_plan,
            partial(_left, books, records),
        )
        service = Service(engine)
        listener = Server(self.network, service)
        spy = EngineSpy(engine, self.loop, self.profile)
        now_s = self.loop.time()
        return Serving(engine, service, listener, spy, health, books, records, now_s)

    async def stop_server(self) -> None:
        """End the server in order, as server.process does."""
        serving = self.serving
        serving.stopping_s = self.loop.time()
        await serving.engine.stop(DRAIN_S)
        await serving.service.close(FLUSH_S)
        await serving.listener.stop(STREAMS_S)
        await serving.records.end(serving.engine)
        if END_S:
            await asyncio.sleep(END_S)
        serving.ended_s = self.loop.time()

    async def kill_server(self) -> None:
        """End it without a word: connections break, children die, nothing is said any more."""
        serving = self.serving
        serving.killed, serving.ended_s = True, self.loop.time()
        serving.records.kill()
        serving.listener.kill()
        for process in list(self.host.alive):
            process.exit(-9)
        # What is left of it on this loop is freed; nobody can hear it any more.
        await serving.engine.stop(0)
        await serving.service.close(0)
        await serving.listener.stop(0)

    # --- clients

    async def stream(self, i: int) -> None:
        """Play client `i` from its start to its end."""
        client = self.scenario.clients[i]
        await asyncio.sleep(client.start_s)
        config = session_config(self.scenario, i)
        records = ClientRecords(i, client, self.disk, self.stalls) if i == RECORDED else None
        on_row = None if records is None else records.on_row
        session = Session(config, GrpcTransport([f"client-{i}"]), Source(), on_row=on_row)
        streamed = Streamed(session.rows if records is None else records.rows)
        self.streamed[i] = streamed
        try:
            await session.run()
        except Exception as error:
            streamed.error = repr(error)
        streamed.gone, streamed.ended_s = session.gone, self.loop.time()
        if records is not None:
            await records.end()
            records.rows.sort(key=attrgetter("frame"))
            self.record_problems += records.writer.problems

    # --- states

    def state_of(self, target: str) -> str:
        """Return which of STATES a target is in; of what is no GPU: the server."""
        if self.serving.stopping_s < self.loop.time():
            return "draining"
        if target.startswith("gpu:") and not target.endswith("all"):
            process = self.host.slot(f"worker-{target[4:]}").process
            states = [process.state] if process is not None and not process.ended else ["starting"]
        else:
            states = [p.state for p in self.host.alive if p.slot.name.startswith("worker")]
        for state in ("starting", "loading", "swapping"):
            if state in states:
                return state
        return "running" if states else "starting"


def session_config(scenario: Scenario, i: int) -> SessionConfig:
    """Return how client `i` of a scenario behaves."""
    client = scenario.clients[i]
    return SessionConfig(
        client=i,
        name=f"client-{i}",
        fps=client.fps,
        slo_ms=client.slo_ms,
        stream_s=scenario.length_s - client.start_s,
    )


def _left(books: list[dict[str, Any]], records: ServerRecords, client: ClientHandle) -> None:
    books.append(client.record())
    records.on_left(client)


def _spec(i: int) -> DeviceSpec:
    return DeviceSpec(
        kind="emulated",
        zoo=_ZOO,
        model=Path("emulation.json"),
        input_px=INPUT_PX,
        max_batch=MAX_BATCH,
        seed=i,
    )


_ZOO = read_zoo(ROOT / "config/zoo/yolov3-tiny.yaml")


@contextmanager
def simulated_grpc(world: World) -> Iterator[None]:
    """Have the client's transport open channels of the simulated network."""
    original = grpc.aio.insecure_channel
    grpc.aio.insecure_channel = world.network.channel
    try:
        yield
    finally:
        grpc.aio.insecure_channel = original
