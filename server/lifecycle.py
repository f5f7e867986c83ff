"""The life of one worker: started, watched while it serves, started again when it has died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from server.dnn_cache import DnnCache
from server.settings import EngineConfig
from server.throttled_log import ThrottledLog
from server.worker import WorkerDied
from server.worker_calls import WorkerCalls

log = logging.getLogger(__name__)

WATCH_S = 0.25  # how often an idle worker is looked at
STEADY_S = 60.0  # a worker that lived this long counts as sound again
PROBE_GAP_S = 0.25  # between the probes that a worker must pass that keeps dying


class WorkerLife:
    """Starts one worker, watches it, and starts it again; the log tells, but not every time.

    Args:
        index: number of the GPU, for the log.
        calls: to the worker.
        cache: the DNNs on its device.
        config: limits and intervals.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(
        self, index: int, calls: WorkerCalls, cache: DnnCache, config: EngineConfig
    ) -> None:
        self._index, self._calls, self._cache, self._config = index, calls, cache, config
        self._loop = asyncio.get_running_loop()
        self._deaths = 0  # since it was last steady
        self._log = ThrottledLog(f"GPU {index}")
        self.restarts = 0

    async def begin(self) -> None:
        """Start the worker and load its first DNNs, all that can be loaded.

        Raises:
            JellyfishError: it does not start, or no DNN can be loaded.
        """
        await self._calls.start()
        await self._cache.load_all()

    async def live(self, serve: Coroutine[Any, Any, None]) -> None:
        """Serve, and keep the cache and an eye on the worker, until it dies."""
        born_s = self._loop.time()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(serve)
                group.create_task(self._cache.keep_wanted())
                group.create_task(self._watch())
        except* WorkerDied as died:
            self._log.tell(f"worker died: {died.exceptions[0]}")
        except* Exception:
            log.exception("GPU %d: serving failed; the worker is started anew", self._index)
        if self._loop.time() - born_s > STEADY_S:
            self._deaths = 0
        self._deaths += 1

    async def revive(self) -> None:
        """Start the worker again, try after try, until it serves a probe.

        One that keeps dying must pass several probes: clients come to it later, not never.
        """
        first_s, longest_s = self._config.restart_s
        pause_s = 0.0
        while True:
            await self.close()
            self._cache.forget()
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, max(first_s, 2 * pause_s))
            try:
                await self._calls.start()
                await self._prove(await self._cache.load_first())
            except Exception as error:  # whatever it is, the GPU must not be given up
                self._log.tell(f"no new worker, next try in {pause_s:g} s: {error}")
            else:
                break
        self.restarts += 1
        self._log.tell("worker started anew")

    async def close(self) -> None:
        """End the worker."""
        try:
            await self._calls.close()
        except Exception as error:  # it is being given up anyway
            self._log.tell(f"worker does not close: {error!r}")

    async def _prove(self, dnn: int) -> None:
        await self._calls.probe(dnn)
        most = int(self._config.restart_s[1] / PROBE_GAP_S)
        for _ in range(min(2 ** max(0, self._deaths - 2) - 1, most)):
            await asyncio.sleep(PROBE_GAP_S)
            await self._calls.probe(dnn)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if not self._calls.alive:
                raise WorkerDied("its process has ended")
            if not self._calls.busy and self._loop.time() - self._calls.ran_s >= WATCH_S:
                await self._calls.ping()
