"""A child and its pipe in virtual time: what is said over a simulated socket, and what is not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from experiment import virtual_time
from jellyfish.detections import Detections
from jellyfish.errors import DeviceError
from jellyfish.policy import policy
from server.child import Child, ChildDied, Command
from server.pipe import LoopPipe
from server.settings import EngineConfig, Settings
from server.stalls import LoopStalls
from server.worker import BatchResult, WorkerDied, WorkerFrame
from server.worker_calls import WorkerCalls
from server.worker_process import ProcessWorker
from tests.chaos import sockets
from tests.engine_world import profile
from tests.simulated import emulated_device


class Puppet:
    """A child that answers each call with what it is told to."""

    def __init__(self, says: Callable[[int], Any]) -> None:
        self.pid, self.killed = 7, False
        self._says = says

    def launch(self, command: Command, on_exit: Callable[[int], None]) -> tuple[Any, Any]:
        self._on_exit = on_exit
        loop: Any = asyncio.get_running_loop()
        ours, theirs = sockets.pair(loop, Random(1))
        self._pipe = LoopPipe(loop, theirs, self._take, lambda: None)  # type: ignore[arg-type]
        return self, ours

    def _take(self, message: tuple[int, str, Any]) -> None:
        for reply in self._says(message[0]):
            self._pipe.send(reply)

    def kill(self) -> None:
        if not self.killed:
            self.killed = True
            self._pipe.close()
            asyncio.get_running_loop().call_soon(self._on_exit, -9)


async def ask(puppet: Puppet) -> Any:
    child = Child(Command("nothing", ()), "puppet", puppet.launch)
    try:
        async with asyncio.timeout(5):
            return await child.call("what")
    finally:
        await child.end()


def test_replies_late_and_twice_are_passed_over() -> None:
    puppet = Puppet(lambda n: [(n + 9, "late"), (n, "yes"), (n, "again")])
    assert virtual_time.run(ask(puppet)) == "yes"


@pytest.mark.parametrize("nonsense", [None, 3, "text", (1, 2, 3), [0, "x"], {}])
def test_who_says_what_is_no_reply_is_ended(nonsense: Any) -> None:
    puppet = Puppet(lambda _: [nonsense])
    with pytest.raises(ChildDied, match="puppet: its process 7 ended"):
        virtual_time.run(ask(puppet))
    assert puppet.killed


BOX = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
GOOD = BatchResult((BOX, "not a JPEG"), 1.0, 2.0, 3.0)
NONSENSE = {
    "no result of a batch": ["x", None, (BOX, BOX)],
    "1 answers to a batch of 2": [replace(GOOD, answers=(BOX,))],
    "a batch took": [replace(GOOD, busy_ms=math.nan), replace(GOOD, decode_ms=-1.0)],
    "no answer to a frame": [replace(GOOD, answers=(BOX, 3))],
    "detections with numbers": [
        replace(GOOD, answers=(BOX, replace(BOX, boxes=np.full((1, 4), math.inf, np.float32)))),
        replace(GOOD, answers=(BOX, replace(BOX, scores=np.full(1, math.nan, np.float32)))),
        replace(GOOD, answers=(BOX, replace(BOX, classes=np.full(1, -5, np.int32)))),
    ],
}


@pytest.mark.parametrize(
    ("why", "result"), [(why, result) for why, results in NONSENSE.items() for result in results]
)
def test_a_workers_nonsense_is_an_error_and_goes_no_further(
    why: str, result: Any, tmp_path: Path
) -> None:
    class Nonsense(ProcessWorker):
        async def _call(self, method: str, *args: Any) -> Any:
            return result

    async def play() -> None:
        settings = Settings(profile=profile(), policy=policy("jellyfish"), config=EngineConfig())
        worker = Nonsense(emulated_device(tmp_path, seed=1), "worker")
        calls = WorkerCalls(worker, settings, LoopStalls())
        before = calls.overhead.ms(0.0)
        with pytest.raises(DeviceError, match=why):
            await calls.run(0, [WorkerFrame(b"", b"", 128)] * 2)
        assert calls.overhead.ms(0.0) == before

    virtual_time.run(play())


@pytest.mark.parametrize(("image_bytes", "in_time"), [(9_000, False), (3_000_000, True)])
def test_heavy_frames_may_take_longer_to_hand_over(
    image_bytes: int, in_time: bool, tmp_path: Path
) -> None:
    class Slow(ProcessWorker):
        async def _call(self, method: str, *args: Any) -> Any:
            await asyncio.sleep(0.9)
            return BatchResult((Detections.none(),) * 2, 0.0, 1.0, 1.0)

    async def play() -> None:
        settings = Settings(profile=profile(), policy=policy("jellyfish"), config=EngineConfig())
        stalls = LoopStalls()
        stalls.start()
        calls = WorkerCalls(Slow(emulated_device(tmp_path, seed=1), "worker"), settings, stalls)
        frames = [WorkerFrame(b"", bytes(image_bytes), 128)] * 2
        if in_time:
            await calls.run(0, frames)
        else:
            with pytest.raises(WorkerDied, match="no answer to a batch"):
                await calls.run(0, frames)
        stalls.stop()

    virtual_time.run(play())
