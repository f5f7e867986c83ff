"""The manager's side of `experiment.latency`: a server's device is measured on its own host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from experiment.fleet import Fleet
from experiment.grid import Config
from experiment.latency import JOB, PROGRESS, RESULT, Round, job_of
from jellyfish.errors import RunError

_POLL_S = 1.0  # asking takes time from what is measured


def measure_there(
    config: Config,
    device: str,
    rounds: int,
    results: Path,
    root: Path,
    step: Callable[[], None],
    keep: Callable[[Round], None],
) -> None:
    """Do what `experiment.latency.measure` does on the server's host, which is held meanwhile.

    Raises:
        RunError: the host cannot be used, is lost, or the device failed there.
        DataError: an input is missing here.
    """
    with Fleet(config, root, clients=False) as hosts:
        place = hosts.server_place(f"latency-{device}")
        place.begin()
        job = place.write(JOB, job_of(config, device, rounds, place, results, root))
        arguments = [place.python, "-m", "experiment.latency", "--job", str(job)]
        process, steps, kept = place.start("latency", arguments), 0, 0
        running = True
        while running:
            running = process.running  # asked first: what it left at its end is read, too
            if running:
                time.sleep(_POLL_S)
            told = place.read(PROGRESS) or {"steps": 0, "rounds": 0}
            for _ in range(told["steps"] - steps):
                step()
            if told["rounds"] > kept:
                for found in (place.read(RESULT) or [])[kept : told["rounds"]]:
                    keep({**found, "host": place.name})
            steps, kept = told["steps"], told["rounds"]
        if process.exit_code != 0:
            place.check()
            raise RunError(f"{process.name}, {device}: {process.log_tail()}")
        if kept < rounds:
            raise RunError(f"{process.name} left {kept} of {rounds} rounds; were files removed?")
        place.host.ask("remove", folder=str(place.folder))
