"""How long a batch occupies a worker, for every DNN of a zoo, on this machine.

On a host: `python -m experiment.latency --job JOB.json`. Beside the job it leaves latency.json, the
rounds so far, and meanwhile latency.progress.json.

A machine's speed drifts, a shared one's by a fifth within a minute. So nothing is measured in one
go: a round takes some batches of every DNN and size in turn, and a profile is many rounds. Slow
minutes fall on all DNNs alike then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment import cores, provenance
from experiment.cpu_watch import Watch
from experiment.disturbance import Tries, of_machine
from experiment.frames import jpegs
from experiment.grid import Config, pick
from experiment.paths import ROOT, asset_path, clip_path, needed, onnx_path, zoo_of
from jellyfish.errors import DeviceError, JellyfishError
from jellyfish.files.atomic import read_json, write_json
from jellyfish.files.zoo import read_zoo
from server.devices import device_spec
from server.worker import WorkerFrame
from server.worker_process import ProcessWorker

if TYPE_CHECKING:
    from experiment.places import Place

JOB, RESULT, PROGRESS = "latency.job.json", "latency.json", "latency.progress.json"
TURN = 10  # batches of one DNN and size in succession
_SETTLE = 1  # batches left out before them: the one before was of another shape
_TELL_S = 1.0

Job = Mapping[str, Any]
Round = dict[str, Any]
Frames = Mapping[int, Iterator[WorkerFrame]]  # without end, by input size
Samples = dict[str, dict[str, list[float]]]  # by input size and batch size, ms


def rounds_of(batches: int) -> int:
    """Return how many rounds give each DNN and size `batches` batches, or some more."""
    return -(-batches // TURN)


def job_of(
    config: Config, device: str, rounds: int, place: Place, results: Path, root: Path = ROOT
) -> dict[str, Any]:
    """Return what is to be measured at a place: settings, and files as they are called there.

    Raises:
        DataError: clip or model are missing.
    """
    zoo, asked = zoo_of(config, root), config["profile"]
    return {
        "device": dict(pick(config, "devices", device)),
        "zoo": place.source(Path(str(config["zoo"]))),
        "onnx": place.file(needed(onnx_path(config, results))),
        "weights": place.file(needed(asset_path(config, zoo.weights, results, root))),
        "clip": place.file(needed(clip_path(config, asked["clip"], results))),
        "batch_sizes": sorted(int(size) for size in asked["batch_sizes"]),
        "warmup": int(asked["warmup"]),
        "rounds": rounds,
        "measuring": dict(config["measuring"]),
    }


def measure(job: Job, step: Callable[[], None], keep: Callable[[Round], None]) -> None:
    """Measure rounds.

    The worker is pinned, all else kept from its cores, and these are kept awake, as in a run.

    Args:
        job: see `job_of`.
        step: is called after every DNN's turn.
        keep: is called with each round: `samples_ms` by input size and batch size, `started`,
            `ended`, what disturbed it, as `disturbance.Told`, and on what it was measured.

    Raises:
        DataError: clip or model are damaged.
        DeviceError: the device failed.
    """
    zoo = read_zoo(Path(job["zoo"]))
    pinned = cores.share(1, int(job["device"].get("threads", 1)))
    spec = device_spec(
        job["device"],
        zoo,
        onnx=Path(job["onnx"]),
        weights=Path(job["weights"]),
        max_batch=max(job["batch_sizes"]),
        cores=pinned.workers[0],
    )
    clip = Path(job["clip"])
    frames = {
        px: cycle([WorkerFrame(b"%d" % k, jpeg, px) for k, jpeg in enumerate(jpegs(clip, px))])
        for px in zoo.input_px
    }
    with cores.kept_to(pinned.rest), cores.awake():
        asyncio.run(_measure(ProcessWorker(spec, "profiling"), frames, job, step, keep))


async def _measure(
    worker: ProcessWorker,
    frames: Frames,
    job: Job,
    step: Callable[[], None],
    keep: Callable[[Round], None],
) -> None:
    try:
        await worker.start()
        for dnn in range(len(frames)):
            await worker.load(dnn)
        left_out = int(job["warmup"])
        for _ in range(job["rounds"]):
            keep(await _calm_round(worker, frames, job, left_out, step))
            left_out = _SETTLE
    finally:
        await worker.close()


async def _calm_round(
    worker: ProcessWorker, frames: Frames, job: Job, left_out: int, step: Callable[[], None]
) -> Round:
    """Measure a round, and again while it is disturbed and tries are left."""
    tries, again = Tries(job["measuring"]), True
    while again:
        started, watch = provenance.now(), Watch(os.getpid())
        samples = await _round(worker, frames, job["batch_sizes"], left_out, step)
        watch.sample()
        again, step = tries.again(of_machine([watch.as_json()])), _no_step  # counted once
    return {
        "started": started,
        "ended": provenance.now(),
        **asdict(tries.told),
        "samples_ms": samples,
        "cpu": provenance.cpu(),
        "versions": provenance.versions(),
    }


async def _round(
    worker: ProcessWorker,
    frames: Frames,
    batch_sizes: Sequence[int],
    left_out: int,
    step: Callable[[], None],
) -> Samples:
    samples: Samples = {}
    for dnn, (px, of_size) in enumerate(frames.items()):
        samples[str(px)] = {
            str(size): await _turn(worker, dnn, of_size, size, left_out) for size in batch_sizes
        }
        step()
    return samples


async def _turn(
    worker: ProcessWorker, dnn: int, frames: Iterator[WorkerFrame], size: int, left_out: int
) -> list[float]:
    took_ms = []
    for _ in range(left_out + TURN):
        batch = [next(frames) for _ in range(size)]
        result = await worker.run(dnn, batch)
        if wrong := [answer for answer in result.answers if isinstance(answer, str)]:
            raise DeviceError(f"profiling at {batch[0].px} px: {wrong[0]}")
        took_ms.append(result.busy_ms)
    return took_ms[left_out:]


def _no_step() -> None:
    """Take none."""


class _Teller:
    """Tells of steps, now and then, and of rounds, in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._steps, self._told_s = folder, 0, time.monotonic()
        self._rounds: list[Round] = []

    def step(self) -> None:
        """Tell of a step, unless the last one told is too near."""
        self._steps += 1
        if time.monotonic() - self._told_s > _TELL_S:
            self._tell()

    def keep(self, found: Round) -> None:
        """Keep a round and tell of it."""
        self._rounds.append(found)
        write_json(self._folder / RESULT, self._rounds)
        self._tell()

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        told = {"steps": self._steps, "rounds": len(self._rounds)}
        write_json(self._folder / PROGRESS, told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiment.latency", description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="JSON file")
    path = parser.parse_args(arguments).job
    try:
        teller = _Teller(path.parent)
        measure(read_json(path), teller.step, teller.keep)
    except JellyfishError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
