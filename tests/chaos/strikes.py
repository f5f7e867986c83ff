"""How faults strike a world, and how they end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Any

import grpc

from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import JellyfishStub
from jellyfish.trace import Trace
from server.clients import BURST
from tests.chaos.channel import EOF
from tests.chaos.children import SimProcess, Slot
from tests.chaos.disk import Trouble
from tests.chaos.faults import EVERYWHERE, GUEST
from tests.chaos.images import bomb, heavy, jpeg
from tests.chaos.link import Direction, Link
from tests.chaos.world import RESTART_S, Struck, World

PATIENCE_S = 4.0  # until a target is in the state that a fault names
LOOK_S = 0.02
SENDING_S = 0.004  # between looks for a message under way
AGAIN_S = 0.1
PLANNED_S = 0.2  # until a client that joins has a GPU
HOSTILE_FPS = 10.0
HOSTILE_SLO_MS = 400.0
FAST = Trace("hostile", (1000.0,), 1.0)

Strike = Callable[[World, Struck], Awaitable[None]]


async def strike(world: World, struck: Struck) -> None:
    """Wait for the time and the state of a fault, let it strike, and wait until it is over."""
    fault = struck.fault
    await asyncio.sleep(max(0.0, fault.time_s - world.loop.time()))
    provoked = await _provoke(world, struck)
    struck.state = world.state_of(fault.target)
    if fault.state in ("", struck.state):
        struck.struck_s = world.loop.time()
        await STRIKES[fault.kind](world, struck)
    if provoked is not None:
        await provoked
    struck.healed_s = world.loop.time()


async def _provoke(world: World, struck: Struck) -> asyncio.Task[None] | None:
    """Bring the target into the state that the fault names, and wait for it, but not for ever."""
    fault = struck.fault
    provoked = None
    struck.provoked = fault.state in ("starting", "loading", "swapping", "draining")
    if fault.state == "draining":
        provoked = world.loop.create_task(restart(world, stop=True), name="restart")
        await asyncio.sleep(world.rng.uniform(0.0, 0.03))
    elif fault.state in ("starting", "loading", "swapping"):
        if fault.target.startswith("gpu:"):
            for slot in slots(world, fault.target):
                if slot.process is not None:
                    slot.process.exit(-9)
        else:
            provoked = world.loop.create_task(restart(world, stop=False), name="restart")
        await asyncio.sleep(world.rng.uniform(0.001, 0.3))
    end_s = world.loop.time() + PATIENCE_S
    while fault.state not in ("", world.state_of(fault.target)) and world.loop.time() < end_s:
        await asyncio.sleep(LOOK_S)
    return provoked


async def restart(world: World, *, stop: bool) -> None:
    """End the server, in order or not, and start the next."""
    async with world.lock:
        await (world.stop_server() if stop else world.kill_server())
        await asyncio.sleep(RESTART_S)
        await world.start_server()


# --- workers and planner


def slots(world: World, target: str) -> list[Slot]:
    kind, _, number = target.partition(":")
    if kind == "planner":
        return [world.host.slot("planner")]
    numbers = range(world.scenario.gpus) if number == EVERYWHERE else [int(number)]
    return [world.host.slot(f"worker-{n}") for n in numbers]


def living(world: World, target: str) -> list[SimProcess]:
    found = [slot.process for slot in slots(world, target)]
    return [process for process in found if process is not None and not process.ended]


async def _dies(world: World, struck: Struck) -> None:
    for process in living(world, struck.fault.target):
        process.exit(struck.fault.value)
        struck.hit()


async def _hangs(world: World, struck: Struck) -> None:
    """For good: until somebody ends the process."""
    when = struck.fault.value
    if when == "now":
        for process in living(world, struck.fault.target):
            process.hang()
            struck.hit()
        return
    for slot in slots(world, struck.fault.target):
        slot.moods[f"hangs at {when}"] = (True, _once(slot, f"hangs at {when}", struck))
    await asyncio.sleep(3.0)
    for slot in slots(world, struck.fault.target):
        slot.moods.pop(f"hangs at {when}", None)


def _once(slot: Slot, mood: str, struck: Struck) -> Callable[[], None]:
    def hit() -> None:
        struck.hit()
        slot.moods.pop(mood, None)

    return hit


async def _pauses(world: World, struck: Struck) -> None:
    paused = living(world, struck.fault.target)
    for process in paused:
        process.pause()
        struck.hit()
    await asyncio.sleep(struck.fault.for_s)
    for process in paused:
        process.resume()


async def _errs(world: World, struck: Struck) -> None:
    """A broken context: until the process ends, and for a while in its successors, too."""
    for process in living(world, struck.fault.target):
        process.broken = True  # type: ignore[attr-defined]
        struck.hit()
    await _mood("broken from the start", True)(world, struck)


async def _says_garbage(world: World, struck: Struck) -> None:
    for process in living(world, struck.fault.target):
        process.say(bytes(world.rng.randrange(256) for _ in range(40)))
        struck.hit()


def _mood(mood: str, value: Any = None, kill: bool = False) -> Strike:
    """Return a strike that sets a mood for as long as the fault says."""

    async def play(world: World, struck: Struck) -> None:
        fault = struck.fault
        mine = (fault.value if value is None else value, struck.hit)
        for slot in slots(world, fault.target):
            slot.moods[mood] = mine
            if kill and slot.process is not None:
                slot.process.exit(-9)
        await asyncio.sleep(fault.for_s)
        for slot in slots(world, fault.target):
            if slot.moods.get(mood) is mine:
                del slot.moods[mood]

    return play


async def _starts_fail(world: World, struck: Struck) -> None:
    mood = "dies at start" if struck.fault.value == "exits" else "cannot open"
    await _mood(mood, True, kill=True)(world, struck)


async def _planner_hangs(world: World, struck: Struck) -> None:
    await _mood("hangs", True)(world, struck)


# --- links


def links(world: World, target: str) -> list[Link]:
    number = target.partition(":")[2]
    numbers = range(len(world.scenario.clients)) if number == EVERYWHERE else [int(number)]
    return [world.network.links[f"client-{n}"] for n in numbers]


async def _share(world: World, struck: Struck, share: float, ways: tuple[str, ...]) -> None:
    directions: list[Direction] = [
        getattr(link, way) for link in links(world, struck.fault.target) for way in ways
    ]
    before = sum(direction.delayed for direction in directions)
    for direction in directions:
        direction.set_share(share)
    await asyncio.sleep(struck.fault.for_s)
    for direction in directions:
        direction.set_share(1.0)
    struck.hits += sum(direction.delayed for direction in directions) - before


async def _cut(world: World, struck: Struck) -> None:
    await _share(world, struck, 0.0, ("up", "down"))


async def _one_way(world: World, struck: Struck) -> None:
    await _share(world, struck, 0.0, (struck.fault.value,))


async def _collapses(world: World, struck: Struck) -> None:
    await _share(world, struck, struck.fault.value, ("up",))


async def _reset(world: World, struck: Struck) -> None:
    """Break the connections of the links, in the middle of a message where there is one."""
    mine = links(world, struck.fault.target)
    for _ in range(100):
        if any(link.up.waiting or link.down.waiting for link in mine):
            break
        await asyncio.sleep(SENDING_S)
    for serving in world.servings:
        for connection in sorted(serving.listener.connections, key=lambda c: c.target):
            if connection.link in mine:
                connection.reset()
                struck.hit()


async def _zero_window(world: World, struck: Struck) -> None:
    for link in links(world, struck.fault.target):
        link.set_window(False)
    await asyncio.sleep(struck.fault.for_s)
    for link in links(world, struck.fault.target):
        struck.hits += len(link._openings)
        link.set_window(True)


# --- clients


class Hostile:
    """A client that says what it likes, over a link of its own."""

    def __init__(self, world: World, struck: Struck) -> None:
        self.name = f"hostile-{len(world.network.links)}"
        self.link = world.add_link(self.name, FAST)
        self.channel = world.network.channel(self.name)
        self.stub: Any = JellyfishStub(self.channel)
        self.struck = struck
        self.call: Any = None
        self.answers: list[Any] = []

    async def register(self) -> str:
        request = pb.RegisterRequest(name=self.name, fps=HOSTILE_FPS, slo_ms=HOSTILE_SLO_MS)
        joined = await self.stub.Register(request, timeout=2.0)
        self.struck.hit()
        return str(joined.token)

    async def join(self) -> str:
        token = await self.register()
        self.call = self.stub.Stream(metadata=(("jellyfish-token", token),))
        return token

    async def leave_early(self) -> None:
        """Join, send more than runs at once, and be gone before it has run."""
        token = await self.join()
        await asyncio.sleep(PLANNED_S)
        for k in range(8):
            await self.send(k, jpeg(128, 0))
        await self.stub.Unregister(pb.UnregisterRequest(token=token), timeout=2.0)

    async def insist(self) -> None:
        """Join as soon as there is a server that lets it."""
        while self.call is None:
            with suppress(grpc.aio.AioRpcError):
                await self.join()
                return
            await asyncio.sleep(AGAIN_S)

    async def listen(self) -> None:
        with suppress(grpc.aio.AioRpcError):
            while (message := await self.call.read()) is not EOF:
                self.answers.append(message)

    async def send(self, frame_id: int, image: bytes, px: int = 128, **lies: float) -> None:
        fields: dict[str, Any] = {"bandwidth_kbps": 50_000.0, "device_ms": 1.0, **lies}
        await self.call.write(pb.Frame(id=frame_id, tag=b"clip:0", image=image, px=px, **fields))
        self.struck.hit()


Act = Callable[[Hostile], Awaitable[None]]
OVER = (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError)


async def _hostile(world: World, struck: Struck, act: Act, reads: bool = True) -> Hostile:
    """Join, act for as long as the fault says. What the server says against it is no news."""
    client = Hostile(world, struck)
    listening = None
    with suppress(*OVER):
        async with asyncio.timeout(struck.fault.for_s):
            await client.insist()
            if reads:
                listening = world.loop.create_task(client.listen(), name="listening")
            await act(client)
    if listening is not None:
        listening.cancel()
        await asyncio.wait([listening])
    return client


def _sends(
    gap_s: float, image: Callable[[int], bytes], frame_id: Callable[[int], int], reads: bool = True
) -> Strike:
    async def act(client: Hostile) -> None:
        for k in range(100_000):
            await client.send(frame_id(k), image(k))
            await asyncio.sleep(gap_s)

    async def play(world: World, struck: Struck) -> None:
        client = await _hostile(world, struck, act, reads)
        await client.channel.close(None)

    return play


def _honest_image(_: int) -> bytes:
    return jpeg(128, 0)


@cache
def _padded(size: int) -> bytes:
    honest = jpeg(416, 0)
    return honest[:-2] + bytes(size) + honest[-2:]


def _oversize(k: int) -> bytes:
    return _padded((1 + k % 3) * 2_000_000)


def _sends_heavily() -> Strike:
    """Frames as heavy as content gets, as many at once as a network stall may deliver."""

    async def act(client: Hostile) -> None:
        for k in range(100_000):
            await client.send(k, heavy(416), 416)
            if k % BURST == BURST - 1:
                await asyncio.sleep(BURST / HOSTILE_FPS)

    async def play(world: World, struck: Struck) -> None:
        client = await _hostile(world, struck, act)
        await client.channel.close(None)

    return play


def floods(gap_s: float) -> Strike:
    """Return a strike by a client that sends so often."""
    return _sends(gap_s, _honest_image, lambda k: k)


LIES = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e-300, 1e300)


async def _lying(client: Hostile) -> None:
    for k in range(100_000):
        px = (128, 0, 1 << 31, 416)[k // 7 % 4]
        told = {"bandwidth_kbps": LIES[k % 7], "device_ms": LIES[k * 3 % 7]}
        await client.send(k, jpeg(128, 0), px, **told)
        await asyncio.sleep(1 / HOSTILE_FPS)


async def _lies(world: World, struck: Struck) -> None:
    client = await _hostile(world, struck, _lying)
    await client.channel.close(None)


async def _streaming(client: Hostile) -> None:
    for k in range(100_000):
        await client.send(k, jpeg(128, 0))
        await asyncio.sleep(1 / HOSTILE_FPS)


async def _vanishes(world: World, struck: Struck) -> None:
    client = await _hostile(world, struck, _streaming)
    client.link.up.set_share(0.0)  # and not a word of it to the server
    client.link.down.set_share(0.0)
    if client.call is not None:
        client.call.cancel()


async def _comes_and_goes(world: World, struck: Struck) -> None:
    end_s = world.loop.time() + struck.fault.for_s
    while world.loop.time() < end_s:
        client = Hostile(world, struck)
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            match world.rng.randrange(3):
                case 0:
                    await client.register()
                case 1:
                    await client.join()
                    await client.send(0, jpeg(128, 0))
                case 2:
                    await client.leave_early()
        await client.channel.close(None)
        await asyncio.sleep(0.05)


# --- the server


async def _stalls(world: World, struck: Struck) -> None:
    begin_s = world.loop.time()
    world.loop.stall(struck.fault.value)
    world.stalls.append((begin_s, world.loop.time()))
    struck.hit()


async def _is_stopped(world: World, struck: Struck) -> None:
    struck.hit()
    if struck.fault.value == "once" or world.lock.locked():
        await restart(world, stop=True)
        return
    async with world.lock:  # a second signal cuts the first short
        ending = world.loop.create_task(world.stop_server(), name="first stop")
        await asyncio.sleep(world.rng.uniform(0.0, 0.5))
        ending.cancel()
        await asyncio.wait([ending])
        await world.kill_server()
        await asyncio.sleep(RESTART_S)
        await world.start_server()


async def _is_killed(world: World, struck: Struck) -> None:
    struck.hit()
    await restart(world, stop=False)


async def _clock_steps(world: World, struck: Struck) -> None:
    world.wall_offset_s += struck.fault.value
    struck.hit()


FILES = {
    "all": ("",),
    "plans": ("server.plans",),
    "clients": ("server.clients",),
    "state": ("server.state",),
    "frames": ("client-",),
}


async def _disk_full(world: World, struck: Struck) -> None:
    await _disk(world, struck, Trouble(FILES[struck.fault.value], False, world.loop.time()))


async def _disk_stalls(world: World, struck: Struck) -> None:
    await _disk(world, struck, Trouble(FILES["all"], True, world.loop.time()))


async def _disk(world: World, struck: Struck, trouble: Trouble) -> None:
    before = world.disk.hits
    world.disk.troubles.append(trouble)
    await asyncio.sleep(struck.fault.for_s)
    trouble.end_s = world.loop.time()
    struck.hits += world.disk.hits - before


async def _log_pipe_full(world: World, struck: Struck) -> None:
    """Nobody reads the log, while somebody asks for what is refused, and logged."""
    before, until_s = world.log.waited, world.loop.time() + struck.fault.for_s
    world.log.block(until_s)
    stranger = Hostile(world, struck)
    while world.loop.time() < until_s:
        with suppress(grpc.aio.AioRpcError):
            await stranger.stub.Register(pb.RegisterRequest(name="nobody"), timeout=2.0)
        await asyncio.sleep(AGAIN_S)
    await stranger.channel.close(None)
    world.log.drain()
    struck.hits += world.log.waited - before


STRIKES: dict[str, Strike] = {
    "worker dies": _dies,
    "worker hangs": _hangs,
    "worker start hangs": _mood("hangs at start", True, kill=True),
    "worker starts fail": _starts_fail,
    "worker slow": _mood("slow"),
    "worker pauses": _pauses,
    "worker errs": _errs,
    "worker answers oddly": _mood("odd answers"),
    "worker answers twice": _mood("answers twice", True),
    "worker says garbage": _says_garbage,
    "worker cannot load": _mood("cannot load", True, kill=True),
    "planner raises": _mood("raises", True),
    "planner hangs": _planner_hangs,
    "planner slow": _mood("slow"),
    "planner plans oddly": _mood("odd plans"),
    "planner crashes": _mood("dies", True),
    "link cut": _cut,
    "link one-way": _one_way,
    "link reset": _reset,
    "link zero window": _zero_window,
    "link collapses": _collapses,
    GUEST: _sends(1 / HOSTILE_FPS, _honest_image, lambda k: k),
    "client floods": floods(0.002),
    "client repeats ids": _sends(1 / HOSTILE_FPS, _honest_image, lambda k: k // 5),
    "client sends oversize": _sends(1 / HOSTILE_FPS, _oversize, lambda k: k),
    "client sends bombs": _sends(1 / HOSTILE_FPS, lambda _: bomb(9000), lambda k: k),
    "client sends heavy frames": _sends_heavily(),
    "client never reads": _sends(1 / HOSTILE_FPS, _honest_image, lambda k: k, reads=False),
    "client vanishes": _vanishes,
    "client comes and goes": _comes_and_goes,
    "client lies": _lies,
    "server stalls": _stalls,
    "server is stopped": _is_stopped,
    "server is killed": _is_killed,
    "disk full": _disk_full,
    "disk stalls": _disk_stalls,
    "log pipe full": _log_pipe_full,
    "wall clock steps": _clock_steps,
}
