"""The DNNs on one worker's device: loads what the plan needs beside what runs, evicts the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from jellyfish.caching import nearest_dnns
from jellyfish.errors import DeviceError
from server.worker import WorkerDied
from server.worker_calls import WorkerCalls

log = logging.getLogger(__name__)

RETRY_S = 5.0  # before a DNN that could not be loaded is tried again


class DnnCache:
    """Keeps the `keep` DNNs that are nearest to the planned one on a worker.

    Args:
        calls: to the worker whose device it is.
        dnns: number of DNNs in the zoo.
        keep: how many stay loaded; while one is swapped in, one more is.
        loaded_one: called after each load.
    """

    def __init__(
        self,
        calls: WorkerCalls,
        dnns: int,
        keep: int,
        loaded_one: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._dnns = dnns
        self._keep = max(1, min(keep, dnns))
        self._loaded_one = loaded_one
        self._wanted = nearest_dnns(0, dnns, keep)
        self._changed = asyncio.Event()
        self._retry_at: dict[int, float] = {}
        self.loaded: set[int] = set()
        self.running: int | None = None  # the DNN of the batch under way, never evicted

    def want(self, planned: int) -> None:
        """Say which DNN the plan names; the others are chosen around it."""
        wanted = nearest_dnns(planned, self._dnns, self._keep)
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    def choose(self, planned: int) -> int | None:
        """Return the DNN to run: the planned one, or what stands in until it is loaded.

        That is the largest one below it, which is fast enough; else the smallest there is. None
        when nothing is loaded.
        """
        if planned in self.loaded or not self.loaded:
            return planned if self.loaded else None
        smaller = [m for m in self.loaded if m < planned]
        return max(smaller) if smaller else min(self.loaded)

    def batch_done(self) -> None:
        """Say that no batch runs now: what it ran may be evicted."""
        if self.running not in self._wanted:
            self._changed.set()
        self.running = None

    def forget(self) -> None:
        """Take note that the worker died: nothing is loaded."""
        self.loaded.clear()
        self._retry_at.clear()
        self.running = None

    async def load_first(self) -> int:
        """Load the most urgent DNN that can be loaded, and return it.

        Raises:
            WorkerDied: the worker died.
            DeviceError: none of those that are wanted can be loaded.
        """
        return await self._load_some(1)

    async def load_all(self) -> int:
        """Load all that is wanted and can be loaded; return the most urgent one.

        Raises:
            WorkerDied: the worker died.
            DeviceError: none of those that are wanted can be loaded.
        """
        return await self._load_some(self._keep)

    async def _load_some(self, count: int) -> int:
        last: DeviceError | None = None
        for dnn in self._wanted:
            if len(self.loaded) < count:
                last = await self._try_load(dnn) or last
        if not self.loaded:
            raise last or DeviceError("no DNN is wanted")
        return next(dnn for dnn in self._wanted if dnn in self.loaded)

    async def keep_wanted(self) -> None:
        """Load and evict as plans change, for ever.

        Raises:
            WorkerDied: the worker died.
        """
        while True:
            self._changed.clear()
            dnn = self._next_missing()
            if dnn is not None:
                await self._try_load(dnn)
            await self._evict_unwanted()
            if dnn is not None:
                continue
            pause_s = RETRY_S if self._retry_at else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    def _next_missing(self) -> int | None:
        now = asyncio.get_running_loop().time()
        for dnn in self._wanted:
            if dnn not in self.loaded and self._retry_at.get(dnn, now) <= now:
                return dnn
        return None

    async def _try_load(self, dnn: int) -> DeviceError | None:
        try:
            await self._calls.load(dnn)
        except WorkerDied:
            raise
        except DeviceError as error:
            log.error("DNN %d cannot be loaded, next try in %g s: %s", dnn, RETRY_S, error)
            self._retry_at[dnn] = asyncio.get_running_loop().time() + RETRY_S
            return error
        self._retry_at.pop(dnn, None)
        self.loaded.add(dnn)
        self._loaded_one()
        return None

    async def _evict_unwanted(self) -> None:
        while len(self.loaded) > self._keep:
            planned = self._wanted[0]
            unwanted = self.loaded.difference(self._wanted, {self.running})
            if not unwanted:
                return
            dnn = max(unwanted, key=lambda m: (abs(m - planned), m))
            self.loaded.discard(dnn)  # before the wait: no batch may choose it any more
            await self._calls.evict(dnn)
