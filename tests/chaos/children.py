"""Simulated worker and planner processes: what stands behind the pipes of the real ones.

A `Host` starts them (it is the `launch` of server.child), and each speaks the real protocol:
pickled (number, method, args) in, (number, value) out, over a simulated socket and the real
LoopPipe. How a process behaves is up to the moods of its slot, which faults set and end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from random import Random
from typing import Any

import numpy as np

from experiment.virtual_time import VirtualTimeLoop
from jellyfish.detections import Detections
from jellyfish.emulation import JitterModel
from jellyfish.errors import DeviceError
from jellyfish.profile import Profile
from jellyfish.scheduling.problem import GpuPlan, Plan, Problem
from jellyfish.scheduling.solvers import solver
from server.child import Command
from server.pipe import LoopPipe
from server.planner_process import HELLO
from server.worker import BatchResult, WorkerFrame
from tests.chaos import sockets
from tests.chaos.images import SCAN_S, scans

START_S = 0.4  # interpreter and imports
OPEN_S = 0.1
LOAD_S = 0.1
HAND_OVER_S = 0.0003  # there and back, per batch
SOLVE_S = 0.004
ITERATIONS = 40  # of the solver
SIGKILL = -9

FOUND = Detections(
    boxes=np.array([[0.1, 0.1, 0.2, 0.3]], np.float32),
    scores=np.array([0.9], np.float32),
    classes=np.array([0], np.int32),
)
SENSELESS = Detections(
    boxes=np.full((1, 4), math.nan, np.float32),
    scores=np.array([2.0], np.float32),
    classes=np.array([-5], np.int32),
)


@dataclass
class Slot:
    """What processes of one name are told: moods by name, each with what counts its hits."""

    name: str
    moods: dict[str, tuple[Any, Callable[[], None]]] = field(default_factory=dict)
    process: SimProcess | None = None  # the latest
    lives: list[SimProcess] = field(default_factory=list)  # all processes so far
    batches: int = 0  # so far, over all processes

    def mood(self, name: str) -> Any:
        """Return the value of a mood, None where there is none; whoever asks is hit by it."""
        found = self.moods.get(name)
        if found is None:
            return None
        found[1]()
        return found[0]


class Host:
    """The machine that the server's processes run on.

    Args:
        profile: what batches cost.
        sigma, cap: of the lognormal jitter of a batch's time.
    """

    def __init__(
        self, loop: VirtualTimeLoop, rng: Random, profile: Profile, sigma: float, cap: float
    ) -> None:
        self.loop, self.rng = loop, rng
        self.profile = profile
        self.model = JitterModel(profile.latency_ms.tolist(), sigma, cap)
        self.slots: dict[str, Slot] = {}
        self.alive: list[SimProcess] = []
        self._pids = 1000

    def slot(self, name: str) -> Slot:
        return self.slots.setdefault(name, Slot(name))

    def launch(self, command: Command, on_exit: Callable[[int], None]) -> tuple[Any, Any]:
        """Start a process; see server.child.Launch."""
        ours, theirs = sockets.pair(self.loop, self.rng)
        self._pids += 1
        kind: type[SimProcess]
        if command.module == "server.worker_child":
            kind, name = SimWorker, command.args[0]
        else:
            kind, name = SimPlanner, "planner"
        slot = self.slot(name)
        process = kind(self, slot, self._pids, theirs, on_exit)
        slot.process = process
        slot.lives.append(process)
        self.alive.append(process)
        return process, ours


class SimProcess:
    """A process that can be killed, and paused like by SIGSTOP. Its work is timers of its own."""

    def __init__(
        self, host: Host, slot: Slot, pid: int, sock: Any, on_exit: Callable[[int], None]
    ) -> None:
        self.host, self.slot, self.pid = host, slot, pid
        self.ended = self.paused = False
        self._loop = host.loop
        self.born_s = self._loop.time()
        self.hung_s = self.ended_s = math.inf
        self.hangs_at = ""
        self._on_exit = on_exit
        self._sock = sock
        self._pipe: Any = None
        self._timers: dict[int, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._numbers = count()
        self._held: list[tuple[float, Callable[[], None]]] = []  # while paused: time left
        self.after(START_S, self._started)

    def kill(self) -> None:
        self.exit(SIGKILL)

    def exit(self, code: int) -> None:
        """End; the parent hears of it in a moment."""
        if self.ended:
            return
        self.ended, self.ended_s = True, self._loop.time()
        for timer, _ in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._held.clear()
        if self._pipe is not None:
            self._pipe.close()
        self._sock.close()
        self.host.alive.remove(self)
        self._loop.call_soon(self._on_exit, code)

    def pause(self) -> None:
        """Stop in the middle of whatever it does."""
        if self.paused or self.ended:
            return
        self.paused = True
        now = self._loop.time()
        for timer, work in self._timers.values():
            timer.cancel()
            self._held.append((max(0.0, timer.when() - now), work))
        self._timers.clear()
        if self._pipe is not None:
            self._loop.remove_reader(self._sock.fileno())

    @property
    def state(self) -> str:
        """What it does."""
        raise NotImplementedError

    def hang(self, what: str = "") -> None:
        """Stop for good, in the middle of `what`; of whatever it does by default."""
        if not self.paused and not self.ended:
            self.hung_s, self.hangs_at = self._loop.time(), what or self.state
        self.pause()

    def resume(self) -> None:
        if not self.paused or self.ended:
            return
        self.paused, self.hung_s = False, math.inf
        held, self._held = self._held, []
        for left_s, work in held:
            self.after(left_s, work)
        if self._pipe is not None:
            self._loop.add_reader(self._sock.fileno(), self._pipe.read)

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Do `work` after so many seconds of running."""
        if self.paused:
            self._held.append((seconds, work))
            return
        number = next(self._numbers)
        self._timers[number] = self._loop.call_later(seconds, self._fire, number), work

    def _fire(self, number: int) -> None:
        self._timers.pop(number)[1]()

    def _started(self) -> None:
        if self.slot.mood("hangs at start"):
            self.hang("start")
            return
        if self.slot.mood("dies at start"):
            self.exit(1)
            return
        self._pipe = LoopPipe(self._loop, self._sock, self.take, partial(self.exit, 0))

    def take(self, message: Any) -> None:
        """Take a request."""
        raise NotImplementedError

    def answer(self, number: int, value: Any) -> None:
        if self._pipe is not None:
            self._pipe.send((number, value))

    def say(self, data: bytes) -> None:
        """Say something that is no message."""
        if not self.ended and self._pipe is not None:
            self._pipe._outgoing.append(memoryview(data))
            self._pipe._write()


class SimWorker(SimProcess):
    """Answers as server.worker_child does: batches one after another, loads beside them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.opened = False
        self.loaded: set[int] = set()
        self.running = self.loading = self.evicting = False
        self.broken = self.slot.mood("broken from the start") is not None
        self._batches: list[tuple[int, tuple[Any, ...]]] = []
        self._jobs: list[tuple[int, str, int]] = []
        self._seed = self.host.rng.getrandbits(32)
        self._n = 0

    @property
    def state(self) -> str:
        """What it does: starting, loading, swapping, running or idle."""
        if not self.opened:
            return "starting"
        if self.loading or self.evicting:
            return "swapping" if self.loaded else "loading"
        return "running" if self.running else "idle"

    def take(self, message: Any) -> None:
        number, method, args = message
        if method == "open":
            self.after(OPEN_S, partial(self._open, number))
        elif method == "run":
            self._batches.append((number, args))
            self._next_batch()
        elif method in ("load", "evict"):
            self._jobs.append((number, method, args[0]))
            self._next_job()
        else:  # a ping and the like
            self.after(HAND_OVER_S, partial(self.answer, number, None))

    def _open(self, number: int) -> None:
        if self.slot.mood("cannot open"):
            self.answer(number, DeviceError("the device cannot be opened"))
            return
        self.opened = True
        self.answer(number, None)

    def _next_job(self) -> None:
        if self.loading or self.evicting or not self._jobs:
            return
        number, method, dnn = self._jobs.pop(0)
        if self.slot.mood(f"hangs at {method}"):
            self.hang(method)
            return
        self.loading, self.evicting = method == "load", method == "evict"
        new = method == "load" and dnn not in self.loaded
        self.after(LOAD_S if new else HAND_OVER_S, partial(self._did, number, method, dnn))

    def _did(self, number: int, method: str, dnn: int) -> None:
        value = None
        if method == "evict":
            self.loaded.discard(dnn)
        elif self.slot.mood("cannot load") or self.broken:
            value = DeviceError("CUDA error: out of memory")
        else:
            self.loaded.add(dnn)
        self.loading = self.evicting = False
        self.answer(number, value)
        self._next_job()

    def _next_batch(self) -> None:
        if self.running or not self._batches:
            return
        number, (dnn, frames, pad_to) = self._batches.pop(0)
        self.running = True
        if self.slot.mood("hangs at run"):
            self.hang("run")
            return
        self.slot.batches += 1
        spent_s = self._spent_s(dnn, frames, pad_to) * (self.slot.mood("slow") or 1.0)
        self.after(spent_s + HAND_OVER_S, partial(self._ran, number, dnn, frames, spent_s))

    def _spent_s(self, dnn: int, frames: tuple[WorkerFrame, ...], pad_to: int | None) -> float:
        if dnn not in self.loaded or self.broken:
            return 0.001
        size = max(len(frames), pad_to or 0)
        self._n += 1
        decoding_s = sum(SCAN_S * (scans(frame.image) - 1) for frame in frames)
        return self.host.model.duration_ms(dnn, size, self._seed, self._n) / 1000 + decoding_s

    def _ran(self, number: int, dnn: int, frames: tuple[WorkerFrame, ...], spent_s: float) -> None:
        self.running = False
        self.answer(number, self._result(dnn, frames, spent_s * 1000))
        if self.slot.mood("answers twice"):
            self.answer(number, self._result(dnn, frames, spent_s * 1000))
            self.answer(number + 1, None)
        self._next_batch()

    def _result(self, dnn: int, frames: tuple[WorkerFrame, ...], spent_ms: float) -> Any:
        if self.broken:
            return DeviceError("CUDA error: an illegal memory access was encountered")
        if dnn not in self.loaded:
            return DeviceError(f"DNN {dnn} is not loaded")
        odd = self.slot.mood("odd answers")
        if odd == "senseless":
            return {"what": "ever"}
        if odd == "NaN times":
            return BatchResult((FOUND,) * len(frames), math.nan, -1e9, math.nan)
        found = SENSELESS if odd == "NaN boxes" else FOUND
        answers = [found if scans(frame.image) else "not a JPEG" for frame in frames]
        if odd == "too few":
            answers.pop()
        return BatchResult(tuple(answers), 0.0, spent_ms, spent_ms)


class SimPlanner(SimProcess):
    """Answers as server.planner_process does, with the real solver."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._busy = False
        self._asked: list[tuple[int, Any]] = []
        self._last: Plan | None = None

    def _started(self) -> None:
        super()._started()
        self.answer(HELLO, None)

    @property
    def state(self) -> str:
        return "running" if self._busy else "idle"

    def take(self, message: Any) -> None:
        number, method, args = message
        self._asked.append((number, args if method == "plan" else None))
        self._next()

    def _next(self) -> None:
        if self._busy or not self._asked:
            return
        number, args = self._asked.pop(0)
        if args is None:
            self.after(HAND_OVER_S, partial(self.answer, number, None))
            return
        self._busy = True
        if self.slot.mood("hangs"):
            self.hang("plan")
        elif self.slot.mood("dies"):
            self.after(SOLVE_S, partial(self.exit, 1))
        else:
            slow_s = self.slot.mood("slow") or 0.0
            self.after(SOLVE_S + slow_s, partial(self._solve, number, *args))

    def _solve(self, number: int, problem: Problem, seed: int, _: Any) -> None:
        self._busy = False
        self.answer(number, self._solved(problem, seed))
        self._next()

    def _solved(self, problem: Problem, seed: int) -> Any:
        if self.slot.mood("raises"):
            return DeviceError("planner: ValueError: no solution")
        plan = solver(self.host_solver)(problem, seed, ITERATIONS)
        odd = self.slot.mood("odd plans")
        if odd == "stale" and self._last is not None:
            return self._last, SOLVE_S * 1000
        if odd not in (None, "stale"):
            return spoilt(plan, odd), SOLVE_S * 1000
        self._last = plan
        return plan, SOLVE_S * 1000

    host_solver = "jellyfish"


def spoilt(plan: Plan, how: str) -> Any:
    """Return what a planner out of its mind makes of `plan`."""
    first = next((gpu for gpu in plan.gpus if gpu is not None), GpuPlan(0, 1))
    match how:
        case "a client short":
            return replace(plan, clients=plan.clients[:-1])
        case "a GPU short":
            return replace(plan, gpus=plan.gpus[:-1])
        case "no such GPU":
            return replace(plan, clients=(len(plan.gpus),) * len(plan.clients))
        case "no such DNN":
            return replace(plan, gpus=(GpuPlan(99, 1),) * len(plan.gpus))
        case "batch 0":
            return replace(plan, gpus=(GpuPlan(first.dnn, 0),) * len(plan.gpus))
        case "all on one":
            gpus = (GpuPlan(first.dnn, 1), *plan.gpus[1:])
            return replace(plan, gpus=gpus, clients=(0,) * len(plan.clients))
        case _:
            return "no plan at all"
