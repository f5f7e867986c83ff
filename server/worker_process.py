"""A worker that is a process of its own, as the event loop sees it.

The child (server.worker_child) runs a blocking device. Whatever happens to it, nobody waits for
ever: when the process ends, every call under way raises WorkerDied.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jellyfish.errors import DeviceError
from server.devices.base import DeviceSpec
from server.linux import ends_blocked
from server.pipe import LoopPipe
from server.worker import BatchResult, WorkerDied, WorkerFrame

ROOT = Path(__file__).resolve().parent.parent
MAX_PIXELS = 1 << 24  # a frame that unpacks to more is refused: a few kB may claim 16 gigapixels


class ProcessWorker:
    """A `Worker` over a child process; see server.worker for its methods.

    Args:
        spec: the device that the child opens.
        name: shown in the process list and in errors.
        start_timeout_s: a child that has not opened its device by then is ended.
    """

    def __init__(self, spec: DeviceSpec, name: str, start_timeout_s: float = 60.0) -> None:
        self._spec, self._name, self._start_timeout_s = spec, name, start_timeout_s
        self._child: _Child | None = None
        self._opened = False

    def __repr__(self) -> str:
        pid = self.pid if self.pid is not None else "none"
        return f"ProcessWorker({self._name!r}, pid={pid}, alive={self.alive})"

    @property
    def alive(self) -> bool:
        """Whether the process runs and has opened its device."""
        return self._opened and self._child is not None and self._child.runs

    @property
    def pid(self) -> int | None:
        """The process, where one runs."""
        return self._child.pid if self._child is not None and self._child.runs else None

    async def start(self) -> None:
        """Start the process and open its device.

        Raises:
            ConfigError, DataError, DeviceError: the device cannot be opened, or not in time.
        """
        await self.close()
        self._child = child = _Child(self._spec, self._name)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await child.call("open", self._spec)
        except TimeoutError:
            await self.close()
            raise DeviceError(
                f"{self._name}: the device did not open within {self._start_timeout_s:g} s"
            ) from None
        except BaseException:
            await self.close()
            raise
        self._opened = True

    async def load(self, dnn: int) -> None:
        """Load and warm `dnn`, beside whatever batch runs."""
        await self._call("load", dnn)

    async def evict(self, dnn: int) -> None:
        """Free what `dnn` takes, after the loads asked for before."""
        await self._call("evict", dnn)

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Run a batch."""
        return cast(BatchResult, await self._call("run", dnn, tuple(frames), pad_to))

    async def close(self) -> None:
        """End the process at once: it holds nothing that would need saving."""
        self._opened = False
        if self._child is not None:
            await self._child.end()

    async def _call(self, method: str, *args: Any) -> Any:
        if self._child is None or not self.alive:
            raise WorkerDied(f"{self._name} is not running")
        return await self._child.call(method, *args)


class _Child:
    """One life of the process: calls with their replies, until it ends."""

    def __init__(self, spec: DeviceSpec, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ended = asyncio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(theirs.fileno(), name, spec.threads)
        self._pipe = LoopPipe(self._loop, ours, self._on_reply, self._process.kill)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    async def call(self, method: str, *args: Any) -> Any:
        """Return what the child answers.

        Raises:
            WorkerDied: it ended before it answered.
            JellyfishError: what it answered with.
        """
        if not self.runs:
            raise WorkerDied(self._epitaph())
        number = next(self._numbers)
        self._calls[number] = reply = self._loop.create_future()
        self._pipe.send((number, method, args))
        try:
            return await reply
        finally:
            del self._calls[number]

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
        if self.runs:
            self._process.kill()
        await self._ended.wait()

    def _on_reply(self, message: tuple[int, Any]) -> None:
        number, value = message
        reply = self._calls.get(number)
        if reply is None or reply.done():  # whoever asked has stopped waiting
            return
        if isinstance(value, Exception):
            reply.set_exception(value)
        else:
            reply.set_result(value)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()  # it has ended: this returns at once
        self._pipe.read()  # what it answered before
        self._pipe.close()
        self._ended.set()
        for reply in self._calls.values():
            if not reply.done():
                reply.set_exception(WorkerDied(self._epitaph()))

    def _epitaph(self) -> str:
        code = self._process.returncode
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{self._name}: its process {self._process.pid} ended ({cause})"


def _spawn(fd: int, name: str, threads: int) -> subprocess.Popen[bytes]:
    path = os.environ.get("PYTHONPATH")
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    }
    command = [sys.executable, "-m", "server.worker_child", str(fd), str(os.getpid()), name]
    with ends_blocked():
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=environment)
