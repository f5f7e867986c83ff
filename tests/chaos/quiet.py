"""`python -m tests.chaos.quiet --hours 24`: no false alarms in what is merely rough.

Execution times have a heavy tail (p99.9 is ten times p50), the server's loop stalls for 200 ms now
and then, and links stand still for a second: no worker is started again, nobody is put out, no GPU
is out of plans, nobody connects anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from math import log
from random import Random

from tests.chaos.faults import Client, Fault, Scenario
from tests.chaos.run import play

PART_S = 1800.0  # virtual seconds of a part; parts are played beside each other
EVERY_S = 60.0  # a stall of the loop and one of each link, on average
SIGMA = log(10.0) / 3.09  # of the logarithm: at p99.9, ten times the median
CLIENTS, FPS, GPUS = 2, 2.0, 2


def scenario(seed: int) -> Scenario:
    """Return part `seed` of the long run."""
    rng = Random(seed)
    clients = tuple(Client(FPS, 600.0, 0.5 * i, (8.0, 5.0, 12.0), 20.0) for i in range(CLIENTS))
    faults = []
    for k in range(int(PART_S / EVERY_S)):
        at_s = 5.0 + EVERY_S * (k + 0.8 * rng.random())
        faults.append(Fault(at_s, "server", "server stalls", value=0.2))
        for i in range(CLIENTS):
            faults.append(Fault(at_s + 10.0 * rng.random(), f"link:{i}", "link cut", for_s=1.0))
    faults = [fault for fault in faults if fault.over_s < PART_S - 5.0]
    return Scenario(seed, GPUS, 20.0, clients, tuple(faults), (SIGMA, 100.0), PART_S)


def alarms(seed: int) -> list[str]:
    """Return what was done in a part though nothing was wrong."""
    world = play(scenario(seed))
    found = []
    for name, slot in world.host.slots.items():
        if len(slot.lives) != 1:
            found.append(f"{name} was started {len(slot.lives)} times")
    for serving in world.servings:
        if [healthy for _, healthy in serving.health] != [True, False]:
            found.append(f"health went {serving.health}")
        if serving.spy.fewest_gpus < GPUS:
            found.append(f"a plan was for {serving.spy.fewest_gpus} of {GPUS} GPUs")
        streams = len(serving.listener.streams)
        if streams != CLIENTS:
            found.append(f"{streams} streams of {CLIENTS} clients")
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Print what was found; exit with 1 where that is something."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.quiet", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(args)
    parts = max(1, round(options.hours * 3600 / PART_S))
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        false = 0
        for part, found in enumerate(pool.imap(alarms, range(parts)), 1):
            false += len(found)
            print("".join(f"part {part}: {text}\n" for text in found), end="", flush=True)
    print(f"{parts * PART_S / 3600:g} virtual hours: {false} false alarms")
    sys.exit(1 if false else 0)


if __name__ == "__main__":
    main()
