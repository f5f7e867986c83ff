"""A server's process of a job in this very one, but for its worker and planner: quick to start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from jellyfish.files.atomic import read_json, write_json
from jellyfish.policy import policy
from server.config import read_job
from server.engine import Engine
from server.planner import InlinePlanner
from server.process import READY, ServerProcess
from tests.engine_world import LoopWorker, profile


class QuickServer(ServerProcess):
    """Listens as its job says; worker and planner live in the event loop."""

    def _engine(self) -> Engine:
        worker, planner = LoopWorker(profile(), load_s=0), InlinePlanner("paper", iterations=60)
        return Engine(
            worker.profile,
            [worker],
            planner,
            policy("jellyfish"),
            Random(1),
            self._job.engine,
            self._health_changed,
        )


@asynccontextmanager
async def served(out: Path, **changes: Any) -> AsyncIterator[int]:
    """Serve as a job with these keys says; yield the port."""
    out.mkdir(parents=True, exist_ok=True)
    job = {"zoo": "", "profile": "", "model": {}, "devices": [{}], "out_dir": str(out), **changes}
    write_json(out / "server.job.json", job)
    stop = asyncio.Event()
    server = QuickServer(read_job(out / "server.job.json"))
    serving = asyncio.create_task(server.run(stop))
    try:
        async with asyncio.timeout(60):
            while not (out / READY).exists() and not serving.done():
                await asyncio.sleep(0.01)
        if serving.done():
            serving.result()  # raises what went wrong
        yield int(read_json(out / READY)["port"])
    finally:
        stop.set()
        await serving
