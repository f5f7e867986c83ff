"""The server of a job in this very process, its device emulated: quick to start, real otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.clip_detections import write_clip_detections
from jellyfish.files.profiles import write_profile
from server.config import read_job
from server.process import READY, ServerProcess
from tests.simulated import INPUT_PX, ROOT, clip, emulation, profile


def emulated_job(out: Path, **changes: Any) -> Path:
    """Write the job of a server with one emulated worker and all that it needs; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "emulation.json", emulation())
    write_profile(out / "profile.json", profile())
    found = {px: out / f"{px}.npz" for px in INPUT_PX}
    for px, detections in clip().items():
        write_clip_detections(found[px], detections)
    job = {
        "zoo": str(ROOT / "config/zoo/yolov3-tiny.yaml"),
        "profile": str(out / "profile.json"),
        "model": {
            "emulation": str(out / "emulation.json"),
            "detections": {"clip": {str(px): str(path) for px, path in found.items()}},
        },
        "devices": [{"kind": "emulated"}],
        "out_dir": str(out),
        **changes,
    }
    write_json(out / "server.job.json", job)
    return out / "server.job.json"


@asynccontextmanager
async def served(out: Path, **changes: Any) -> AsyncIterator[int]:
    """Serve as a job with these changes says; yield the port."""
    stop = asyncio.Event()
    serving = asyncio.create_task(ServerProcess(read_job(emulated_job(out, **changes))).run(stop))
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
