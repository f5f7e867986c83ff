"""The simulator's speed: `python -m benchmarks.simulation [--seconds S] [--repeats N]`.

Against a bare virtual-time loop that only fires as many timers, on one core, in the same run; and
a site of 200 clients on 16 GPUs. CPU time of this process; times real time is simulated seconds,
from the first client's start to the last one's end, over CPU seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Callable
from statistics import median

from experiment import virtual_time
from experiment.virtual_serving import Scene, serve
from jellyfish.records import FrameRow, Outcome
from jellyfish.trace import Trace
from tests.simulated import SYNTHETIC, scene

LONG = Trace(name="synthetic", mbps=SYNTHETIC.mbps, step_s=20.0)
HEADER = "| scene | policy | CPU s | x real time | us a frame | share of a bare loop | ok |"


def cpu_s(work: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of `work` in s."""
    spent = []
    for _ in range(repeats):
        gc.collect()
        start_s = time.process_time()
        work()
        spent.append(time.process_time() - start_s)
    return median(spent)


def count_timers(played: Scene) -> int:
    """Return how many timers the loop is given while `played` runs."""
    counted = 0
    original = virtual_time.VirtualTimeLoop.call_at

    def call_at(*args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal counted
        counted += 1
        return original(*args, **kwargs)

    virtual_time.VirtualTimeLoop.call_at = call_at  # type: ignore[method-assign]
    try:
        serve(played)
    finally:
        virtual_time.VirtualTimeLoop.call_at = original  # type: ignore[method-assign]
    return counted


def bare(timers: int, clients: int, seconds: float) -> None:
    """Fire `timers` timers, as `clients` tasks that sleep, within `seconds` of virtual time."""

    async def sleeper() -> None:
        each = timers // clients
        for _ in range(each):
            await asyncio.sleep(seconds / each)

    async def everybody() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(sleeper())

    virtual_time.run(everybody())


def line(name: str, played: Scene, repeats: int) -> str:
    """Return a line of the table."""
    rows: list[FrameRow] = [row for client in serve(played).rows for row in client]
    long_s = max(row.capture_s for row in rows) - min(row.capture_s for row in rows)
    timers = count_timers(played)
    spent_s = cpu_s(lambda: serve(played), repeats)
    bare_s = cpu_s(lambda: bare(timers, len(played.clients), long_s), repeats)
    ok = sum(row.outcome is Outcome.OK for row in rows) / len(rows)
    return (
        f"| {name} | {played.policy.name} | {spent_s:.2f} | {long_s / spent_s:.0f} "
        f"| {spent_s / len(rows) * 1e6:.0f} | {bare_s / spent_s:.2f} | {ok:.1%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="that each client streams")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    for name in ("jellyfish", "paper"):
        played = scene(8, fps=25, trace=LONG, gap_s=5.0, policy_name=name, stream_s=options.seconds)
        print(line("8 clients x 25 fps, 2 GPUs", played, options.repeats), flush=True)
    site = scene(200, fps=15, slo_ms=150, trace=LONG, gap_s=0.05, workers=16, stream_s=15.0)
    print(line("200 clients x 15 fps, 16 GPUs", site, 1))


if __name__ == "__main__":
    main()
