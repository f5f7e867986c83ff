"""Defects in how workers are watched and believed."""

from __future__ import annotations

import asyncio
from typing import Any

from jellyfish.errors import DeviceError
from tests.chaos.mutants import Mutant, instead


def _raises(original: Any) -> Any:
    async def start(gpu: Any) -> None:
        await original(gpu)
        if gpu.failure is not None:
            raise DeviceError("one GPU is not there")

    return start


def _forgets_calls(original: Any) -> Any:
    def on_exit(child: Any, code: int) -> None:
        child._calls.clear()
        original(child, code)

    return on_exit


def _forgets_the_rest(original: Any) -> Any:
    def write(pipe: Any, *args: Any) -> None:
        original(pipe, *args)
        if pipe._outgoing:  # taken in part
            pipe._outgoing.popleft()

    return write


def _by_order(original: Any) -> Any:
    def on_reply(child: Any, message: Any) -> None:
        if isinstance(message, tuple) and len(message) == 2 and child._calls:
            message = next(iter(child._calls)), message[1]
        original(child, message)

    return on_reply


def _half_a_minute_late(original: Any) -> Any:
    async def revive(life: Any) -> None:
        await asyncio.sleep(30.0)
        await original(life)

    return revive


MUTANTS = [
    Mutant("replies are matched by order", "server.child:Child._on_reply", _by_order),
    Mutant(
        "a dead worker is started half a minute later",
        "server.lifecycle:WorkerLife.revive",
        _half_a_minute_late,
    ),
    Mutant("errors stay", "server.worker_calls:ERRORS_IN_A_ROW", instead(10**9)),
    Mutant(
        "a hang costs ten seconds",
        "server.settings:Settings.run_timeout_s",
        instead(lambda *_: 10.0),
    ),
    Mutant("idle workers are not pinged", "server.worker_calls:PING_TIMEOUT_S", instead(1e9)),
    Mutant("workers are believed", "server.worker_process:_check", instead(lambda *_: None)),
    Mutant(
        "stalls of the loop are charged to workers",
        "server.stalls:LoopStalls.total_s",
        instead(property(lambda _: 0.0)),
    ),
    Mutant("a broken GPU stops the start", "server.gpu:Gpu.start", _raises),
    Mutant("calls outlive their process", "server.child:Child._on_exit", _forgets_calls),
    Mutant("a partial write loses the rest", "server.pipe:LoopPipe._write", _forgets_the_rest),
]
