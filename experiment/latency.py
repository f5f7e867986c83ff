"""How long a batch occupies a worker, for one DNN, on this machine.

On a host: `python -m experiment.latency --job JOB.json`. Beside the job it leaves latency.json,
and meanwhile latency.progress.json.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment import cores, provenance
from experiment.frames import jpegs
from experiment.grid import Config, pick
from experiment.paths import ROOT, asset_path, clip_path, needed, onnx_path, zoo_of
from jellyfish.errors import DeviceError, JellyfishError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.zoo import read_zoo
from server.devices import device_spec
from server.devices.base import DeviceSpec
from server.worker import WorkerFrame
from server.worker_process import ProcessWorker

if TYPE_CHECKING:
    from experiment.places import Place

JOB, RESULT, PROGRESS = "latency.job.json", "latency.json", "latency.progress.json"
_TELL_S = 1.0

Job = Mapping[str, Any]
Samples = dict[str, list[float]]  # by batch size, ms


def job_of(
    config: Config, device: str, px: int, place: Place, results: Path, root: Path = ROOT
) -> dict[str, Any]:
    """Return what is to be measured at a place: settings, and files as they are called there.

    Raises:
        DataError: clip or model are missing.
    """
    zoo, asked = zoo_of(config, root), config["profile"]
    return {
        "px": px,
        "device": dict(pick(config, "devices", device)),
        "zoo": place.source(Path(str(config["zoo"]))),
        "onnx": place.file(needed(onnx_path(config, results))),
        "weights": place.file(needed(asset_path(config, zoo.weights, results, root))),
        "clip": place.file(needed(clip_path(config, asked["clip"], results))),
        "batch_sizes": sorted(int(size) for size in asked["batch_sizes"]),
        "warmup": int(asked["warmup"]),
        "batches": int(asked["batches"]),
    }


def measure(job: Job, step: Callable[[], None]) -> dict[str, Any]:
    """Return `samples_ms`, by batch size, and when and on what they were measured.

    The worker is pinned, all else kept from its cores, and these are kept awake, as in a run.

    Args:
        job: see `job_of`.
        step: is called after every batch.

    Raises:
        DataError: clip or model are damaged.
        DeviceError: the device failed.
    """
    frames = jpegs(Path(job["clip"]), job["px"])
    pinned = cores.share(1, int(job["device"].get("threads", 1)))
    spec = device_spec(
        job["device"],
        read_zoo(Path(job["zoo"])),
        onnx=Path(job["onnx"]),
        weights=Path(job["weights"]),
        max_batch=max(job["batch_sizes"]),
        input_px=(job["px"],),
        cores=pinned.workers[0],
    )
    started = provenance.now()
    with cores.kept_to(pinned.rest), cores.awake():
        samples = asyncio.run(_measure(spec, frames, job, step))
    return {
        "samples_ms": samples,
        "started": started,
        "ended": provenance.now(),
        "cpu": provenance.cpu(),
        "versions": provenance.versions(),
    }


async def _measure(
    spec: DeviceSpec, images: list[bytes], job: Job, step: Callable[[], None]
) -> Samples:
    px, warmup = job["px"], job["warmup"]
    frames = [WorkerFrame(tag=f"{k}".encode(), image=i, px=px) for k, i in enumerate(images)]
    worker = ProcessWorker(spec, "profiling")
    samples: Samples = {str(size): [] for size in job["batch_sizes"]}
    try:
        await worker.start()
        await worker.load(0)
        for size in job["batch_sizes"]:
            for k in range(warmup + job["batches"]):
                batch = [frames[(k * size + i) % len(frames)] for i in range(size)]
                result = await worker.run(0, batch)
                if wrong := [answer for answer in result.answers if isinstance(answer, str)]:
                    raise DeviceError(f"profiling at {px} px: {wrong[0]}")
                if k >= warmup:
                    samples[str(size)].append(result.busy_ms)
                step()
    finally:
        await worker.close()
    return samples


class _Counter:
    """Counts steps into a file, now and then."""

    def __init__(self, path: Path) -> None:
        self._path, self._steps, self._told_s = path, 0, time.monotonic()

    def __call__(self) -> None:
        self._steps += 1
        if time.monotonic() - self._told_s > _TELL_S:
            self.tell()

    def tell(self) -> None:
        """Write it now."""
        self._told_s = time.monotonic()
        write_json(self._path, self._steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiment.latency", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file")
    path = parser.parse_args(arguments).job
    try:
        counter = _Counter(path.with_name(PROGRESS))
        found = measure(read_json(path), counter)
        counter.tell()
        write_json(path.with_name(RESULT), found)
    except JellyfishError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
