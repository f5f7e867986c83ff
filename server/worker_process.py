"""A worker that is a process of its own, as the event loop sees it.

The child (server.worker_child) runs a blocking device. Whatever happens to it, nobody waits for
ever: when the process ends, every call under way raises WorkerDied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Any, cast

from jellyfish.detections import Detections
from jellyfish.errors import DeviceError
from server.child import Child, ChildDied, Command, Launch, launch
from server.devices.base import DeviceSpec
from server.worker import BatchResult, WorkerDied, WorkerFrame


class ProcessWorker:
    """A `Worker` over a child process; see server.worker for its methods.

    Args:
        spec: the device that the child opens.
        name: shown in the process list and in errors.
        start_timeout_s: a child that has not opened its device by then is ended.
        launch: starts the child.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        name: str,
        start_timeout_s: float = 60.0,
        launch: Launch = launch,
    ) -> None:
        self._spec, self._name, self._start_timeout_s = spec, name, start_timeout_s
        environment = {
            "OMP_NUM_THREADS": str(spec.threads),
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(max(spec.sizes) ** 2),
        }
        self._command = Command("server.worker_child", (name,), environment)
        self._launch = launch
        self._child: Child | None = None
        self._opened = False

    def __repr__(self) -> str:
        pid = self.pid if self.pid is not None else "none"
        return f"ProcessWorker({self._name!r}, pid={pid}, alive={self.alive})"

    @property
    def alive(self) -> bool:
        """Whether the process runs and has opened its device."""
        return self._opened and self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """The process, where one runs."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Start the process and open its device.

        Raises:
            ConfigError, DataError, DeviceError: the device cannot be opened, or not in time.
        """
        await self.close()
        self._child = Child(self._command, self._name, self._launch)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._ask("open", self._spec)
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

    async def ping(self) -> None:
        """Have the process answer, after the batch that it runs."""
        await self._call("ping")

    async def evict(self, dnn: int) -> None:
        """Free what `dnn` takes, after the loads asked for before."""
        await self._call("evict", dnn)

    async def run(
        self, dnn: int, frames: Sequence[WorkerFrame], pad_to: int | None = None
    ) -> BatchResult:
        """Run a batch."""
        result = await self._call("run", dnn, tuple(frames), pad_to)
        _check(result, len(frames))
        return cast(BatchResult, result)

    async def close(self) -> None:
        """End the process at once: it holds nothing that would need saving."""
        self._opened = False
        if self._child is not None:
            await self._child.end()

    async def _call(self, method: str, *args: Any) -> Any:
        if not self.alive:
            raise WorkerDied(f"{self._name} is not running")
        return await self._ask(method, *args)

    async def _ask(self, method: str, *args: Any) -> Any:
        assert self._child is not None
        try:
            return await self._child.call(method, *args)
        except ChildDied as died:
            raise WorkerDied(str(died)) from None


def _check(result: Any, frames: int) -> None:
    """Believe a process only what can be: it goes on to clients and into estimates.

    Raises:
        DeviceError: it makes no sense.
    """
    if not isinstance(result, BatchResult):
        raise DeviceError(f"no result of a batch: {result!r:.80}")
    if len(result.answers) != frames:
        raise DeviceError(f"{len(result.answers)} answers to a batch of {frames}")
    times_ms = (result.decode_ms, result.execute_ms, result.busy_ms)
    if not all(0 <= ms < inf for ms in times_ms):
        raise DeviceError(f"a batch took {times_ms} ms")
    for answer in result.answers:
        if not isinstance(answer, str | Detections):
            raise DeviceError(f"no answer to a frame: {answer!r:.80}")
        if isinstance(answer, Detections) and not answer.sensible:
            raise DeviceError("detections with numbers that cannot be")
