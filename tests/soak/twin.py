"""A scenario of the simulation in real time: what tests.chaos.strikes strikes, made of real parts.

Clients are real sessions in this process, over real gRPC, through relays that shape as simulated
links do; the server, its workers and its planner are processes (tests.soak.moody).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil

from client.grpc_transport import GrpcTransport
from client.session import Session
from jellyfish.charges import derived_seed
from jellyfish.errors import RunError
from jellyfish.files.atomic import write_json
from jellyfish.files.clip_detections import ClipDetections, write_clip_detections
from jellyfish.files.profiles import write_profile
from jellyfish.trace import Trace
from tests.chaos import strikes
from tests.chaos.children import FOUND
from tests.chaos.faults import EVERYWHERE, Scenario
from tests.chaos.images import jpeg
from tests.chaos.link import Link
from tests.chaos.strikes import strike
from tests.chaos.world import (
    CLIP_FRAMES,
    CONFIG,
    DELAY_S,
    INPUT_PX,
    KEEPER_S,
    MAX_BATCH,
    ROOT,
    Source,
    Streamed,
    Struck,
    profile_of,
    session_config,
)
from tests.soak.life import Life
from tests.soak.moody import GO, IMPORTED, MOODS, PLANNER
from tests.soak.watching import Stalls, waits_s
from tests.soak.wires import Clock, Wires

READY_S = 1.0  # of the script, when its first server is; about as in the simulation
FLOOD_GAP_S = 0.01  # more frames would take the core from the honest clients of this process
WAITS_S = 1.0
POLL_S = 0.01  # until a mood's hit is seen
END_S = 8.0  # after the script, for sessions to end


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class RealProcess:
    """A worker or planner; see tests.chaos.children.SimProcess."""

    def __init__(self, process: psutil.Process, slot: RealSlot) -> None:
        self._process, self._slot = process, slot

    @property
    def ended(self) -> bool:
        try:
            return bool(self._process.status() == psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return True

    def _send(self, number: int) -> None:
        with suppress(psutil.Error):
            self._process.send_signal(number)

    def exit(self, code: int) -> None:
        self._send(-code if code < 0 else signal.SIGKILL)
        if self._slot.state_file.exists():
            self._slot.state_file.write_text("0 starting")

    def pause(self) -> None:
        self._send(signal.SIGSTOP)

    hang = pause

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def say(self, data: bytes) -> None:
        self._slot.moods[f"says {self._process.pid}"] = (data.hex(), _nothing)

    def _break(self, _: bool) -> None:
        self._slot.moods[f"broken {self._process.pid}"] = (True, _nothing)

    broken = property(fset=_break)


def _nothing() -> None:
    pass


class RealMoods(dict[str, tuple[Any, Callable[[], None]]]):
    """Moods that processes read from a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def __setitem__(self, mood: str, told: tuple[Any, Callable[[], None]]) -> None:
        super().__setitem__(mood, told)
        self._write()

    def __delitem__(self, mood: str) -> None:
        super().__delitem__(mood)
        self._write()

    def pop(self, mood: str, *default: Any) -> Any:
        told = super().pop(mood, *default)
        self._write()
        return told

    def _write(self) -> None:
        text = json.dumps({mood: value for mood, (value, _) in self.items()})
        temporary = self._file.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self._file)


class RealSlot:
    """Processes of one name; see tests.chaos.children.Slot."""

    def __init__(self, name: str, folder: Path, host: RealHost) -> None:
        self.name, self._host = name, host
        self.moods = RealMoods(folder / f"{name}.json")
        self.state_file, self._hits = folder / f"{name}.state", folder / f"{name}.hits"
        self._seen = 0

    @property
    def process(self) -> RealProcess | None:
        last = "jellyfish" if self.name == PLANNER else self.name
        for child in self._host.children():
            with suppress(psutil.Error):
                if child.cmdline()[-1:] == [last]:
                    return RealProcess(child, self)
        return None

    @property
    def state(self) -> str:
        """What a worker does, as it says itself."""
        if not self.state_file.exists():
            return "starting"
        pid, _, state = self.state_file.read_text().strip().partition(" ")
        return state if state and Path(f"/proc/{pid}").exists() else "starting"

    @property
    def starts_s(self) -> list[float]:
        """What each start of the process took, up to an open device."""
        opened = self.state_file.with_suffix(".opened")
        return [float(line) for line in opened.read_text().split()] if opened.exists() else []

    def tell_hits(self) -> None:
        """Tell whoever counts a mood's hits of those that are new."""
        if not self._hits.exists():
            return
        lines = self._hits.read_text().splitlines()
        for mood in lines[self._seen :]:
            if mood in self.moods:
                self.moods[mood][1]()
        self._seen = len(lines)


class RealHost:
    """The machine; see tests.chaos.children.Host."""

    def __init__(self, folder: Path, children: Callable[[], list[psutil.Process]]) -> None:
        self._folder, self.children = folder, children
        self.slots: dict[str, RealSlot] = {}

    def slot(self, name: str) -> RealSlot:
        if name not in self.slots:
            self.slots[name] = RealSlot(name, self._folder, self)
        return self.slots[name]


@dataclass
class RealServing:
    """What strikes want to know of a server; see tests.chaos.world.Serving."""

    listener: Wires


class Twin:
    """See tests.chaos.world.World.

    Args:
        scenario: what to play.
        folder: where all is written.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario, self._folder = scenario, folder
        self.rng = Random(derived_seed(scenario.seed, "world"))
        self.lock = asyncio.Lock()
        self.struck = [Struck(fault) for fault in scenario.faults]
        self.streamed = [Streamed([], {}) for _ in scenario.clients]
        self.stalls: list[tuple[float, float]] = []
        self.wall_offset_s = 0.0
        self.late, self.waited_s = Stalls(), 0.0
        self._lives: list[Life] = []
        self._stopping = False
        moods = folder / "moods"
        moods.mkdir(parents=True)
        os.environ[MOODS] = str(moods)
        self.host = RealHost(moods, lambda: self._lives[-1].children())
        self._job, self._port = self._material(), free_port()
        self._spare = self._new_life()  # the next server, which has yet to be told to start

    def _new_life(self) -> Life:
        number = len(self._lives) + 1
        out, seed = self._folder / f"server-{number}", self.scenario.seed + number
        return Life(self._job, out, self._port, seed, "tests.soak.moody")

    def _material(self) -> dict[str, Any]:
        folder, profile = self._folder, profile_of(self.scenario.latency_ms)
        write_profile(folder / "profile.json", profile)
        sigma, cap = self.scenario.jitter
        emulation = {"kind": "jitter", "latency_ms": profile.latency_ms.tolist()}
        write_json(folder / "emulation.json", {**emulation, "sigma": sigma, "cap": cap})
        for px in INPUT_PX:
            sizes = np.array([len(jpeg(px, n)) for n in range(CLIP_FRAMES)], np.int64)
            found = ClipDetections((FOUND,) * CLIP_FRAMES, sizes, px, px)
            write_clip_detections(folder / f"{px}.npz", found)
        return {
            "zoo": str(ROOT / "config/zoo/yolov3-tiny.yaml"),
            "profile": str(folder / "profile.json"),
            "model": {
                "emulation": str(folder / "emulation.json"),
                "detections": {"clip": {str(px): str(folder / f"{px}.npz") for px in INPUT_PX}},
            },
            "devices": [{"kind": "emulated", "max_batch": MAX_BATCH}] * self.scenario.gpus,
            "max_clients": CONFIG.max_clients,
            "cached_dnns": CONFIG.cached_dnns,
        }

    async def play(self) -> None:
        """Play the scenario from start to end."""
        strikes.STRIKES["client floods"] = strikes.floods(FLOOD_GAP_S)
        await self.start_server()
        first = self._lives[0]
        self.start_s = first.ready_s - first.begin_s
        zero_s = asyncio.get_running_loop().time() - READY_S
        self.loop = Clock(zero_s, self._stop_for)
        self.network = Wires(self.loop, first.port)
        self.servings = [RealServing(self.network)]
        for i, client in enumerate(self.scenario.clients):
            self.add_link(f"client-{i}", Trace(f"link {i}", client.mbps, client.step_s))
        beside = [asyncio.create_task(self._tell_hits()), asyncio.create_task(self.late.run())]
        beside.append(asyncio.create_task(self._count_waits()))
        work = [self._strike(struck) for struck in self.struck]
        work += [self._stream(i) for i in range(len(self.streamed))]
        tasks = [asyncio.create_task(one) for one in work]
        _, pending = await asyncio.wait(tasks, timeout=self.scenario.length_s + END_S)
        for task in [*pending, *beside]:
            task.cancel()
        await asyncio.gather(*tasks, *beside, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
        begin_s = time.monotonic()
        await self.stop_server()
        self.end_s = time.monotonic() - begin_s
        workers = [self.host.slot(f"worker-{n}") for n in range(self.scenario.gpus)]
        # One that starts alone is there soonest; of all at once, the server's start tells.
        self.worker_start_s = min(start_s for slot in workers for start_s in slot.starts_s)
        await self.network.close()

    def end_at_once(self) -> None:
        """Leave no process."""
        for life in [*self._lives, self._spare]:
            if life.process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(life.process.pid, signal.SIGKILL)
                life.process.wait()

    # --- what strikes ask for

    def add_link(self, name: str, trace: Trace) -> Link:
        return self.network.add(name, trace, DELAY_S)

    async def start_server(self) -> None:
        """Start a server; one that cannot start is started again, as its keeper would."""
        while True:
            self._lives.append(life := self._spare)
            while not (life.out / IMPORTED).exists():
                await asyncio.sleep(POLL_S)
            life.begin_s, self._stopping = time.monotonic(), False
            (life.out / GO).touch()
            with suppress(RunError):
                await life.ready()
            self._spare = self._new_life()
            if life.ready_s == life.ready_s:
                return
            await asyncio.sleep(KEEPER_S)

    async def stop_server(self) -> None:
        """End it in order."""
        self._stopping = True
        if await self._lives[-1].stop() is None:
            raise RunError(f"{self._lives[-1].out.name} hangs after SIGTERM")

    async def kill_server(self) -> None:
        """End it without a word."""
        self._lives[-1].kill()

    def _stop_for(self, for_s: float) -> None:
        server = self._lives[-1].process
        server.send_signal(signal.SIGSTOP)
        self.loop.call_later(for_s, server.send_signal, signal.SIGCONT)

    def state_of(self, target: str) -> str:
        """See tests.chaos.world.World.state_of."""
        if self._stopping:
            return "draining"
        one = target.startswith("gpu:") and not target.endswith(EVERYWHERE)
        names = [target[4:]] if one else range(self.scenario.gpus)
        states = [self.host.slot(f"worker-{n}").state for n in names]
        states = states if one else [state for state in states if state != "starting"]
        for state in ("starting", "loading", "swapping"):
            if state in states:
                return state
        return "running" if states else "starting"

    # ---

    async def _tell_hits(self) -> None:
        while True:
            for slot in list(self.host.slots.values()):
                slot.tell_hits()
            await asyncio.sleep(POLL_S)

    async def _count_waits(self) -> None:
        """Count for how long threads, ours and the server's, were ready and had no core."""
        before: dict[int, float] = {}
        while True:
            pids = [os.getpid(), self._lives[-1].process.pid]
            with suppress(psutil.Error):
                pids += [child.pid for child in self._lives[-1].children()]
            now = {}
            for pid in pids:
                with suppress(OSError):
                    now[pid] = waits_s(pid)
            self.waited_s += sum(max(0.0, s - before.get(pid, s)) for pid, s in now.items())
            before = now
            await asyncio.sleep(WAITS_S)

    async def _strike(self, struck: Struck) -> None:
        await strike(self, struck)  # type: ignore[arg-type]
        if struck.fault.kind == "server stalls" and struck.hits:
            await asyncio.sleep(struck.fault.value)
            struck.healed_s = self.loop.time()

    async def _stream(self, i: int) -> None:
        await asyncio.sleep(self.scenario.clients[i].start_s)
        config = session_config(self.scenario, i)
        transport = GrpcTransport([f"127.0.0.1:{self.network.ports[f'client-{i}']}"])
        session = Session(config, transport, Source())
        streamed = self.streamed[i] = Streamed(session.rows, session.detections)
        try:
            await session.run()
        except Exception as error:
            streamed.error = repr(error)
        streamed.gone = session.gone
