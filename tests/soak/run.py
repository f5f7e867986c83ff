"""One soak from start to end: faults one after another, then all checks over what was left."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jellyfish.errors import JellyfishError
from jellyfish.files.atomic import read_json, write_json
from tests.chaos.faults import Fault
from tests.soak import checks
from tests.soak.checks import Struck, Violation
from tests.soak.faults import CLIENTS, allowed_s
from tests.soak.life import Disk, left_over, marked, spawn
from tests.soak.material import prepare
from tests.soak.relay import Relay
from tests.soak.strikes import World, end_at_once
from tests.soak.watching import Probe, Probed, Sample, Sampler, Stalls

MODEL, DISK = "model", "disk"  # in the folder of a soak
FPS, SLO_MS = 10.0, 300.0
UP_S, LOAD_END_S = 30.0, 20.0


@dataclass
class Outcome:
    """What a soak saw."""

    begin_s: float = 0.0
    end_s: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    probed: list[Probed] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    frames: checks.Frames = field(default_factory=lambda: checks.Frames([]))
    stalls: Stalls = field(default_factory=Stalls)


class Soak:
    """Runs faults against real processes.

    Args:
        folder: where all is written.
        faults: what strikes, in order.
        length_s: for how long.
        seed: of the servers.
    """

    def __init__(self, folder: Path, faults: Sequence[Fault], length_s: float, seed: int) -> None:
        self._folder, self._faults, self._length_s = folder, faults, length_s
        self._seed = seed
        self._disk = Disk(folder / DISK)
        self._load: subprocess.Popen[bytes] | None = None
        self._world: World | None = None
        self.seen = Outcome()

    @property
    def own_disk(self) -> bool:
        """Whether the disk can be filled without harm to others."""
        return self._disk.own

    def leave_out(self, kind: str) -> None:
        """Have no fault of that kind."""
        self._faults = [fault for fault in self._faults if fault.kind != kind]

    async def run(self, stop: asyncio.Event) -> Outcome:
        """Run until the time is over or `stop` is set; return what was seen, all checked."""
        job = await asyncio.to_thread(prepare, self._folder / MODEL)
        world = self._world = World(job, self._disk, self._folder, self._seed)
        try:
            async with AsyncExitStack() as ends:
                await self._play(world, ends, stop)
                await self._end(world)
        finally:
            end_at_once([life.process for life in world.lives] + world.visitors)
            end_at_once([] if self._load is None else [self._load])
            if left := await left_over(marked()):
                self._note("processes", f"left at the end: {', '.join(left)}")
            self._disk.close(self._folder)
        self._check(world)
        return self.seen

    def _note(self, check: str, text: str, time_s: float = float("nan")) -> None:
        self.seen.violations.append(Violation(check, text, time_s))

    async def _play(self, world: World, ends: AsyncExitStack, stop: asyncio.Event) -> None:
        await world.start()
        start_s = world.life.ready_s - world.life.begin_s
        await self._start_load(world, ends)
        probe, sampler = (
            Probe(world.life.port),
            Sampler(world.lives, self._load_pid, self._folder / "load.log"),
        )
        self.seen.probed, self.seen.samples = probe.seen, sampler.samples
        for watch in (probe.run(), sampler.run(), self.seen.stalls.run()):
            task = asyncio.create_task(watch)
            ends.push_async_callback(_cancelled, task)
        self.seen.begin_s = _now()
        striking = asyncio.create_task(self._strike_all(world, start_s))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({striking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        striking.cancel()
        stopping.cancel()
        if isinstance(
            error := (await asyncio.gather(striking, return_exceptions=True))[0], Exception
        ):
            self._note("soak", f"{type(error).__name__}: {error}", _now())
        self.seen.end_s = _now()

    async def _start_load(self, world: World, ends: AsyncExitStack) -> None:
        for _ in range(CLIENTS):
            relay = Relay(world.life.port)
            await relay.start()
            world.relays.append(relay)
            ends.push_async_callback(relay.close)
        clients = [{"port": relay.port, "fps": FPS, "slo_ms": SLO_MS} for relay in world.relays]
        job = self._folder / "load.json"
        stream_s = 2 * self._length_s + 600  # it is told when to end
        write_json(job, {"out": str(self._folder), "clients": clients, "stream_s": stream_s})
        log = self._folder / "load.log"
        self._load = spawn("tests.soak.load", str(job), log=log)
        until_s, rows = _now() + UP_S, self._folder / "client-0.frames.jsonl"
        while not (rows.exists() and rows.stat().st_size) and _now() < until_s:
            await asyncio.sleep(0.1)

    def _load_pid(self) -> int:
        assert self._load is not None
        return self._load.pid

    async def _strike_all(self, world: World, start_s: float) -> None:
        for fault in self._faults:
            await asyncio.sleep(max(0.0, self.seen.begin_s + fault.time_s - _now()))
            if _now() - self.seen.begin_s > self._length_s:
                return
            one = Struck(fault, _now(), _now(), allowed_s(fault, start_s))
            self.seen.struck.append(one)
            print(
                f"{one.begin_s - self.seen.begin_s:7.1f} s  {fault.kind} ({fault.target})",
                flush=True,
            )
            await world.strike(fault)
            one.end_s = _now()
            await asyncio.sleep(max(0.0, one.over_s - _now()))
        await asyncio.sleep(max(0.0, self.seen.begin_s + self._length_s - _now()))

    async def _end(self, world: World) -> None:
        """End clients, then the server."""
        assert self._load is not None
        if self._load.poll() is not None:
            self._note("clients", f"their process has ended: {self._load.returncode}", _now())
        self._load.terminate()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._load.wait, LOAD_END_S)
        if world.life.process.poll() is None:
            await world.end_server()

    # --- afterwards

    def _check(self, world: World) -> None:
        seen, folder = self.seen, self._folder
        rows = checks.read_rows(folder, CLIENTS)
        seen.frames = checks.frames_of(rows)
        for one in seen.struck:
            checks.judge(one, seen.frames, seen.stalls, seen.samples)
        found = [Violation("strike", text, time_s) for time_s, text in world.found]
        summaries = []
        for life in world.lives:
            where = folder / life.out.name
            found += checks.half_lines(where)
            found += checks.bad_lines(where / life.log.name)
            try:
                summaries.append((checks.collect(where), life.killed))
            except JellyfishError as error:
                found.append(Violation("records", f"{where.name}: {error}"))
            else:
                found += checks.books(summaries[-1][0], where.name, life.killed)
        for client, mine in enumerate(rows):
            found += checks.ticks(mine, client, seen.end_s)
            if (told := folder / f"client-{client}.json").exists():
                found += checks.answers(mine, read_json(told), client, seen.end_s)
            else:
                found.append(Violation("clients", f"client {client} has left no summary"))
            found += checks.agreement(mine, summaries, client, FPS)
        found += checks.bad_lines(folder / "load.log")
        found += checks.health(seen.probed)
        calm = checks.quiet(seen.samples, seen.struck)
        found += checks.growth(calm, {i: life.ready_s for i, life in enumerate(world.lives)})
        found += checks.log_rate(seen.samples)
        self._assign(found)

    def _assign(self, found: Sequence[Violation]) -> None:
        """Give each violation to the fault in whose time it falls."""
        for violation in found:
            for one in self.seen.struck:
                if one.begin_s <= violation.time_s < one.over_s:
                    one.violations.append(violation)
                    break
            else:
                self.seen.violations.append(violation)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()


def as_json(seen: Outcome, seed: int) -> dict[str, Any]:
    """Return all that was seen as a JSON value; times count from the beginning."""
    zero = seen.begin_s

    def told(violation: Violation) -> dict[str, Any]:
        at = violation.time_s
        return {**asdict(violation), "time_s": None if at != at else round(at - zero, 2)}

    faults = [
        {
            **asdict(one.fault),
            "struck_s": round(one.begin_s - zero, 3),
            "over_s": round(one.end_s - zero, 3),
            "allowed_s": round(one.allowed_s, 3),
            "lost": one.lost,
            "before": round(one.before, 4),
            "after": round(one.after, 4),
            "recovery_s": one.recovery_s,
            "disturbed": one.disturbed,
            "violations": [told(v) for v in one.violations],
        }
        for one in seen.struck
    ]
    samples = [{**asdict(s), "time_s": round(s.time_s - zero, 2)} for s in seen.samples]
    probes = [{**p._asdict(), "time_s": round(p.time_s - zero, 2)} for p in seen.probed]
    return {
        "seed": seed,
        "length_s": round(seen.end_s - zero, 1),
        "faults": faults,
        "violations": [told(v) for v in seen.violations],
        "stalls": [[round(at - zero, 2), round(late, 3)] for at, late in seen.stalls.seen],
        "probes": probes,
        "samples": samples,
    }
