"""Keeps a host awake during a run and notes whose its CPU time is, until SIGTERM.

`python -m experiment.cpu_watch FOLDER`

Once a second it notes which share of all cores' time went to the run, to every program together
(the run's too), and to other machines, by the hypervisor ("steal" of proc(5)). The run is whoever
started this, and all that descends from it. At the end it writes FOLDER/cpu.json.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiment.cores import awake
from experiment.processes import cpu_of_machine, cpu_of_tree
from jellyfish.files.atomic import write_json

FILE = "cpu.json"
EVERY_S = 1.0
SHORTEST_S = 0.3  # a last part of a second says little: clock ticks are 10 ms


@dataclass
class Watch:
    """Samples of this host, a row a second, as shares of all cores' time since the row before.

    Args:
        root: the process whose descendants, itself among them, are the run.
    """

    root: int
    time_s: list[float] = field(default_factory=list)  # monotonic, as capture_s is
    run: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    stolen: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._before = self._look()

    def _look(self) -> tuple[float, float, float, float]:
        return time.monotonic(), *cpu_of_machine(), cpu_of_tree(self.root)

    def sample(self) -> None:
        """Add a row, unless the one before is too near."""
        now_s, busy_s, stolen_s, run_s = self._look()
        before_s, before_busy_s, before_stolen_s, before_run_s = self._before
        if now_s - before_s < SHORTEST_S:
            return
        there_s = (now_s - before_s) * self._cores
        self.time_s.append(round(now_s, 3))
        self.run.append(round((run_s - before_run_s) / there_s, 4))
        self.busy.append(round((busy_s - before_busy_s) / there_s, 4))
        self.stolen.append(round((stolen_s - before_stolen_s) / there_s, 4))
        self._before = now_s, busy_s, stolen_s, run_s

    def as_json(self) -> dict[str, object]:
        """Return the file's content; hosts that are one machine have one `machine`."""
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        columns = {name: getattr(self, name) for name in ("time_s", "run", "busy", "stolen")}
        return {"machine": machine, "cores": self._cores, **columns}


def main(arguments: Sequence[str] | None = None) -> None:
    """Watch until SIGTERM; then write the file."""
    parser = argparse.ArgumentParser(prog="python -m experiment.cpu_watch", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with awake() as permitted:
        watch = Watch(os.getppid())
        while signal.sigtimedwait(ends, EVERY_S) is None:
            watch.sample()
        watch.sample()
    write_json(options.folder / FILE, {**watch.as_json(), "awake": permitted})


if __name__ == "__main__":
    main()
