"""Real processes with the moods of the simulated ones: servers, workers and planners.

`python -m tests.soak.moody --job JOB.json` is `python -m server`, but for children that are started
as `python -m tests.soak.moody FD PARENT NAME`: those of the server, whose device or solver behaves
as NAME's moods say. Moods are a JSON file in the folder that MOODS names, read whenever one might
matter; a line in NAME.hits tells of each time that one did, and NAME.state what a worker does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from jellyfish.detections import Detections
from jellyfish.errors import DeviceError
from server import child, worker_child
from server.devices import Device, DeviceSpec
from server.linux import die_with_parent
from server.worker import BatchResult, WorkerFrame

MOODS = "JELLYFISH_SOAK_MOODS"  # in the environment
PLANNER = "planner"
IMPORTED, GO = "imported", "go"  # beside the job: a server can start, and has to
LOOK_S = 0.005


class Moods:
    """What the process of one name is told.

    Args:
        name: of a worker, or PLANNER.
    """

    def __init__(self, name: str) -> None:
        folder = Path(os.environ[MOODS])
        self._file = folder / f"{name}.json"
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._opened = os.open(folder / f"{name}.opened", append, 0o644)
        self._hits = os.open(folder / f"{name}.hits", append, 0o644)
        self._state = os.open(folder / f"{name}.state", os.O_WRONLY | os.O_CREAT, 0o644)

    def get(self, mood: str) -> Any:
        """Return a mood's value, None where there is none; who asks is hit by it."""
        try:
            value = json.loads(self._file.read_text()).get(mood)
        except FileNotFoundError:
            return None
        if value is not None:
            os.write(self._hits, f"{mood}\n".encode())
        return value

    def say_state(self, state: str) -> None:
        """Let the soak know what this process does."""
        os.pwrite(self._state, f"{os.getpid()} {state}".ljust(24).encode(), 0)

    def say_opened(self) -> None:
        """Let the soak know what the start took."""
        took_s = time.time() - psutil.Process().create_time()
        os.write(self._opened, f"{took_s:.3f}\n".encode())


SENSELESS = Detections(
    boxes=np.full((1, 4), nan, np.float32),
    scores=np.array([2.0], np.float32),
    classes=np.array([-5], np.int32),
)


def hang() -> None:
    """Stop for good, as if by somebody else."""
    os.kill(os.getpid(), signal.SIGSTOP)


class MoodyDevice:
    """A device under moods; see server.devices.base.Device."""

    def __init__(self, device: Device, moods: Moods) -> None:
        self._device, self._moods = device, moods
        self._loaded: set[int] = set()
        self._broken = moods.get("broken from the start") is not None

    @property
    def broken(self) -> bool:
        """Whether it fails at whatever it does, for good."""
        self._broken = self._broken or self._moods.get(f"broken {os.getpid()}") is not None
        return self._broken

    def load(self, dnn: int) -> None:
        self._moods.say_state("swapping" if self._loaded else "loading")
        try:
            if self._moods.get("hangs at load"):
                hang()
            if self._moods.get("cannot load") or self.broken:
                time.sleep(0.1)
                raise DeviceError("CUDA error: out of memory")
            self._device.load(dnn)
            self._loaded.add(dnn)
        finally:
            self._moods.say_state("running")

    def evict(self, dnn: int) -> None:
        if self._moods.get("hangs at evict"):
            hang()
        self._device.evict(dnn)
        self._loaded.discard(dnn)

    def run(self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None) -> Any:
        if self._moods.get("hangs at run"):
            hang()
        if self.broken:
            raise DeviceError("CUDA error: an illegal memory access was encountered")
        result = self._device.run(dnn, frames, pad_to)
        factor = self._moods.get("slow")
        if factor is not None:
            time.sleep((factor - 1) * result.execute_ms / 1000)
            result = replace(result, execute_ms=factor * result.execute_ms)
        return _odd(result, self._moods.get("odd answers"))


def _odd(result: BatchResult, how: str | None) -> Any:
    if how == "senseless":
        return {"what": "ever"}
    if how == "NaN times":
        return replace(result, decode_ms=nan, execute_ms=-1e9)
    if how == "NaN boxes":
        return replace(result, answers=(SENSELESS,) * len(result.answers))
    return replace(result, answers=result.answers[:-1]) if how == "too few" else result


class MoodyChild(worker_child.Child):
    """Answers as a worker does that is out of its mind."""

    moods: Moods

    def serve(self) -> None:
        threading.Thread(target=self._say_garbage, daemon=True).start()
        super().serve()

    def _say_garbage(self) -> None:
        """Say what it is told to, which is no message."""
        while (said := self.moods.get(f"says {os.getpid()}")) is None:
            time.sleep(LOOK_S)
        self._pipe._socket.sendall(bytes.fromhex(said))

    def _answer(self, number: int, job: Any) -> None:
        super()._answer(number, job)
        if getattr(job, "func", None) == self._run and self.moods.get("answers twice"):
            super()._answer(number, lambda: None)
            super()._answer(number + 1, lambda: None)

    def _run(self, start: float, *args: Any) -> Any:
        result = self._opened().run(*args)
        if not isinstance(result, BatchResult) or result.decode_ms != result.decode_ms:
            return result
        return replace(result, busy_ms=(time.perf_counter() - start) * 1000.0)


def be_worker(name: str) -> None:
    """Run server.worker_child under moods."""
    moods = MoodyChild.moods = Moods(name)
    moods.say_state("starting")
    if moods.get("hangs at start"):
        hang()
    if moods.get("dies at start"):
        sys.exit(1)
    make = worker_child.make

    def moody(spec: DeviceSpec) -> Device:
        if moods.get("cannot open"):
            raise DeviceError("the device cannot be opened")
        device = MoodyDevice(make(spec), moods)
        moods.say_state("running")
        moods.say_opened()
        return device

    worker_child.make = moody  # type: ignore[assignment]
    worker_child.Child = MoodyChild  # type: ignore[misc]
    worker_child.main()


def be_planner() -> None:
    """Run server.planner_process under moods."""
    import tests.chaos.children  # noqa: F401 - now, and not within the first plan
    from server import planner_process

    moods, solver = Moods(PLANNER), planner_process.solver
    last: list[Any] = []

    def moody(name: str) -> Any:
        return partial(_solve, solver(name), moods, last)

    planner_process.solver = moody
    planner_process.main()


def _solve(solve: Any, moods: Moods, last: list[Any], *arguments: Any) -> Any:
    if moods.get("hangs"):
        hang()
    if moods.get("dies"):
        os._exit(1)
    time.sleep(moods.get("slow") or 0.0)
    if moods.get("raises"):
        raise ValueError("no solution")
    from tests.chaos.children import spoilt  # slow to import, and no worker needs it

    plan, odd = solve(*arguments), moods.get("odd plans")
    if odd == "stale" and last:
        return last[-1]
    if odd not in (None, "stale"):
        return spoilt(plan, odd)
    last[:] = [plan]
    return plan


def be_server() -> int:
    """Run server, with moody children and the limits of the simulated one, once it is told to.

    All modules are there before: the simulation has no such thing as an import.
    """
    from server import __main__ as main
    from server import config, process
    from tests.chaos.world import CONFIG

    def launch(command: child.Command, on_exit: Any) -> Any:
        return child.launch(replace(command, module="tests.soak.moody"), on_exit)

    process.ProcessWorker = partial(process.ProcessWorker, launch=launch)  # type: ignore
    process.ProcessPlanner = partial(process.ProcessPlanner, launch=launch)  # type: ignore
    config.ServerJob.engine = CONFIG  # type: ignore
    folder = Path(sys.argv[2]).parent
    (folder / IMPORTED).touch()
    while not (folder / GO).exists():
        time.sleep(LOOK_S)
    return main.main()


if __name__ == "__main__":
    if sys.argv[1] == "--job":
        sys.exit(be_server())
    die_with_parent(int(sys.argv[2]))
    be_worker(sys.argv[3]) if sys.argv[3].startswith("worker") else be_planner()
