"""The manager's side of `experiment.latency`: a server's device is measured on its own host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment.fleet import Fleet
from experiment.grid import Config
from experiment.latency import JOB, PROGRESS, RESULT, job_of
from experiment.paths import ROOT
from jellyfish.errors import RunError

_POLL_S = 1.0  # asking takes time from what is measured


def measure_there(
    config: Config,
    device: str,
    px: int,
    results: Path,
    root: Path = ROOT,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return what `experiment.latency.measure` does on the server's host, which is held meanwhile.

    Raises:
        RunError: the host cannot be used, is lost, or the device failed there.
        DataError: an input is missing here.
    """
    with Fleet(config, root, clients=False) as hosts:
        place = hosts.server_place(f"latency-{px}")
        place.begin()
        job = place.write(JOB, job_of(config, device, px, place, results, root))
        arguments = [place.python, "-m", "experiment.latency", "--job", str(job)]
        process, steps = place.start("latency", arguments), 0
        while process.running:
            time.sleep(_POLL_S)
            told = place.read(PROGRESS) or 0
            for _ in range(told - steps):
                step()
            steps = told
        if process.exit_code != 0:
            place.check()
            raise RunError(f"{process.name}, {device} at {px} px: {process.log_tail()}")
        found = place.read(RESULT)
        if found is None:
            raise RunError(f"{process.name} left no {RESULT}; were its files removed?")
        place.host.ask("remove", folder=str(place.folder))
        return {**found, "host": place.name}
