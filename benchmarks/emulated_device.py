"""How well an emulated device keeps time: `python -m benchmarks.emulated_device [--batches N]`.

Of each batch, how much longer than drawn it occupied its worker's process (the hand-over inside the
process included), and how much longer it took seen from the server's event loop; next to a bare
sleep as long as that in this process. Quantiles in ms; wants a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from server.linux import sleep_precisely
from server.worker import WorkerFrame
from server.worker_process import ProcessWorker
from tests.simulated import INPUT_PX, emulated_device

TARGET_MS = 0.5
HEADER = "| beyond the time drawn, in ms | p50 | p99 | most | within 0.5 ms |"


async def batches(folder: Path, count: int) -> tuple[list[float], list[float], list[float]]:
    """Return per batch the ms drawn, and the ms beyond them in the worker and in the loop."""
    worker = ProcessWorker(emulated_device(folder, seed=1), "emulated")
    frames = [WorkerFrame(f"clip:{i}".encode(), b"", INPUT_PX[0]) for i in range(2)]
    drawn, inside, outside = [], [], []
    await worker.start()
    try:
        await worker.load(0)
        for _ in range(count):
            begin_s = time.perf_counter()
            result = await worker.run(0, frames)
            took_ms = (time.perf_counter() - begin_s) * 1000
            drawn.append(result.execute_ms)
            inside.append(result.busy_ms - result.execute_ms)
            outside.append(took_ms - result.execute_ms)
    finally:
        await worker.close()
    return drawn, inside, outside


def sleeps(drawn_ms: list[float]) -> list[float]:
    """Return the ms by which sleeps of this thread are late."""
    sleep_precisely()
    late = []
    for ms in drawn_ms:
        begin_s = time.perf_counter()
        time.sleep(ms / 1000)
        late.append((time.perf_counter() - begin_s) * 1000 - ms)
    return late


def line(name: str, beyond_ms: list[float]) -> str:
    """Return a line of the table."""
    p50, p99, most = np.quantile(beyond_ms, [0.5, 0.99, 1])
    within = np.mean(np.abs(beyond_ms) <= TARGET_MS)
    return f"| {name} | {p50:.2f} | {p99:.2f} | {most:.2f} | {within:.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        drawn, inside, outside = asyncio.run(batches(Path(folder), options.batches))
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    print(line("in the worker's process", inside))
    print(line("seen by the server", outside))
    print(line("a bare sleep", sleeps(drawn)))


if __name__ == "__main__":
    main()
