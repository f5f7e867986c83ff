"""How a fault strikes real processes and links; each returns when it is over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.faults import Fault
from tests.soak.faults import lasts_s, numbers
from tests.soak.life import Disk, Life, is_there, left_over, spawn
from tests.soak.relay import Relay

LINK_MBPS = 10.0  # what a link that collapses had: it carries all sizes at 10 frames/s
HUNG_S = 5.0  # a worker that hangs is ended by the server within this, at a load of 4
VISIT_S = 5.0  # beyond its time, a hostile client's process may take to start and end


class World:
    """What faults strike.

    Args:
        job: what servers serve.
        disk: where they write.
        folder: where all else is written.
        seed: of the servers.

    Attributes:
        lives: the servers, one after another; the last one is the present one.
        relays: one a client.
        found: violations that are seen on the spot, as (time, text).
    """

    def __init__(self, job: dict[str, Any], disk: Disk, folder: Path, seed: int) -> None:
        self._job, self.disk, self.folder, self._seed = job, disk, folder, seed
        self.lives: list[Life] = []
        self.relays: list[Relay] = []
        self.found: list[tuple[float, str]] = []
        self.visitors: list[subprocess.Popen[bytes]] = []

    @property
    def life(self) -> Life:
        """The present server."""
        return self.lives[-1]

    async def start(self) -> None:
        """Start a server where the one before it listened."""
        port, number = (self.life.port if self.lives else 0), len(self.lives)
        out = self.disk.path / f"server-{number}"
        self.lives.append(Life(self._job, out, port, self._seed + number))
        await self.life.ready()

    async def strike(self, fault: Fault) -> None:
        """Do to the world what the fault says; return when it is over."""
        strikes: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "worker dies": self._worker_dies,
            "worker hangs": self._worker_hangs,
            "worker pauses": self._worker_pauses,
            "planner crashes": self._planner_crashes,
            "planner hangs": self._planner_hangs,
            "server stalls": self._server_stalls,
            "server is killed": self._server_is_killed,
            "server is stopped": self._server_is_stopped,
            "disk full": self._disk_full,
        }
        strikes |= dict.fromkeys(
            ("link cut", "link one-way", "link reset", "link collapses"), self._link
        )
        await strikes.get(fault.kind, self._visit)(fault)

    def _complain(self, text: str) -> None:
        self.found.append((time.monotonic(), text))

    # --- the server's parts

    def _workers(self, fault: Fault) -> list[psutil.Process]:
        workers = map(self.life.worker, numbers(fault))
        return [worker for worker in workers if worker is not None]

    async def _worker_dies(self, fault: Fault) -> None:
        for worker in self._workers(fault):
            _send(worker, signal.SIGSEGV if fault.value == -signal.SIGSEGV else signal.SIGKILL)

    async def _worker_hangs(self, fault: Fault) -> None:
        workers = self._workers(fault)
        for worker in workers:
            _send(worker, signal.SIGSTOP)
        until_s = time.monotonic() + HUNG_S
        while any(map(is_there, workers)) and time.monotonic() < until_s:
            await asyncio.sleep(0.02)
        for worker in filter(is_there, workers):
            self._complain(f"a worker that hangs is still there after {HUNG_S:g} s")
            _send(worker, signal.SIGCONT)

    async def _worker_pauses(self, fault: Fault) -> None:
        await asyncio.gather(*(_pause(worker, fault.for_s) for worker in self._workers(fault)))

    async def _planner_crashes(self, fault: Fault) -> None:
        for planner in self.life.children("planner_process"):
            _send(planner, signal.SIGKILL)

    async def _planner_hangs(self, fault: Fault) -> None:
        planners = self.life.children("planner_process")
        await asyncio.gather(*(_pause(planner, fault.for_s) for planner in planners))

    # --- the server

    async def _server_stalls(self, fault: Fault) -> None:
        await _pause(psutil.Process(self.life.process.pid), lasts_s(fault))

    async def _server_is_killed(self, fault: Fault) -> None:
        children = self.life.children()
        self.life.kill()
        await self._all_gone(children)
        await self.start()

    async def _server_is_stopped(self, fault: Fault) -> None:
        children = self.life.children()
        await self.end_server(twice=fault.value == "twice")
        await self._all_gone(children)
        await self.start()

    async def end_server(self, twice: bool = False) -> None:
        """Have the server end in order."""
        code = await self.life.stop(twice)
        if code != 0:
            said = "hangs" if code is None else f"has exit code {code}"
            self._complain(f"the server {said} after SIGTERM ({self.life.out.name})")

    async def _all_gone(self, children: list[psutil.Process]) -> None:
        if left := await left_over(children):
            self._complain(f"left over from the server: {', '.join(left)}")

    async def _disk_full(self, fault: Fault) -> None:
        until_s = time.monotonic() + fault.for_s
        try:
            while time.monotonic() < until_s:
                self.disk.fill()  # what a file gave back, too
                await asyncio.sleep(0.1)
        finally:
            self.disk.free()

    # --- the way there, and who comes

    async def _link(self, fault: Fault) -> None:
        relays = [self.relays[i] for i in numbers(fault)]
        for relay in relays:
            if fault.kind == "link reset":
                relay.reset()
            elif fault.kind == "link collapses":
                relay.slow(fault.value * LINK_MBPS)
            else:
                relay.cut(*([fault.value] if fault.value else []))
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            for relay in relays:
                relay.heal()

    async def _visit(self, fault: Fault) -> None:
        arguments = (fault.kind, str(self.life.port), str(fault.for_s))
        visitor = spawn("tests.soak.hostile", *arguments, log=self.folder / "hostile.log")
        self.visitors.append(visitor)
        until_s = time.monotonic() + fault.for_s + VISIT_S
        while visitor.poll() is None and time.monotonic() < until_s:
            await asyncio.sleep(0.05)
        visitor.kill()
        if visitor.wait() != 0:
            self._complain(f"{fault.kind}: its process ended with {visitor.returncode}")


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


async def _pause(process: psutil.Process, for_s: float) -> None:
    _send(process, signal.SIGSTOP)
    try:
        await asyncio.sleep(for_s)
    finally:
        _send(process, signal.SIGCONT)


def end_at_once(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes and all in their groups."""
    for process in processes:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
