"""Runs Snakemake so that it can be killed: `python -m experiment.launch [SNAKEMAKE OPTIONS]`.

One run a directory at a time. Before: looks whether configs can be read, waits for a run that is
alive, ends what a killed one left and removes its lock. Meanwhile: hands SIGINT and SIGTERM on, and
ends Snakemake when the make above is gone. After: ends whatever is left of it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from experiment import guard, leftovers, processes
from experiment.leftovers import say
from experiment.lock import held
from jellyfish.errors import JellyfishError
from jellyfish.files.keys import read_keys

GRACE_S = 20.0  # from the first signal until everything is killed


class Launch:
    """One Snakemake process and what is below it."""

    def __init__(self, options: list[str], directory: Path) -> None:
        if "--rerun-incomplete" not in options:
            options = ["--rerun-incomplete", *options]
        self._me = os.getpid()
        self._asked_at: float | None = None
        self._code = 0
        processes.adopt_orphans()
        self._snakemake = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *options],
            cwd=directory,
            env={**os.environ, leftovers.MARK: str(directory.resolve())},
            process_group=0,  # a Ctrl-C reaches it through us alone, once
            preexec_fn=self._before_exec,
        )
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _before_exec(self) -> None:
        processes.die_with_parent(signal.SIGKILL, self._me)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._ask(number, f"{signal.Signals(number).name}: ending the run")

    def _ask(self, number: int, why: str) -> None:
        if self._asked_at is not None:
            return
        say(why)
        self._asked_at = time.monotonic()
        self._code = 128 + number
        try:
            os.killpg(self._snakemake.pid, signal.SIGINT)
        except ProcessLookupError:
            return  # it has just ended by itself

    def wait(self) -> int:
        """Return the exit code once Snakemake and all below it have ended."""
        try:
            self._wait_snakemake()
        finally:
            self._end_rest()
        ended = self._snakemake.wait()
        if ended < 0 and not self._code:
            say(f"Snakemake was killed by {signal.Signals(-ended).name}; run again to go on")
        return self._code or (128 - ended if ended < 0 else ended)

    def _wait_snakemake(self) -> None:
        handles = processes.watch(guard.above())
        own = os.pidfd_open(self._snakemake.pid)
        poll = select.poll()
        for handle in [own, *(handle for handle in handles if handle > 0)]:
            poll.register(handle, select.POLLIN)
        for process in (process for handle, process in handles.items() if handle < 0):
            self._ask(signal.SIGTERM, f"process {process.pid} above has ended: ending the run")
        while own not in (ready := [handle for handle, _ in poll.poll(self._rest_ms())]):
            for handle in ready:
                poll.unregister(handle)
                gone = handles[handle].pid
                self._ask(signal.SIGTERM, f"process {gone} above has ended: ending the run")
            if self._rest_ms() == 0:
                say(f"the run did not end within {GRACE_S:g} s: killing it")
                return

    def _rest_ms(self) -> int:
        """Milliseconds to wait: at most 1 s, since a signal may arrive meanwhile."""
        if self._asked_at is None:
            return 1000
        return int(1000 * min(1.0, max(0.0, self._asked_at + GRACE_S - time.monotonic())))

    def _end_rest(self) -> None:
        for grace_s in (leftovers.GRACE_S, 0.0):  # again: the first may have left orphans
            left = processes.descendants(self._me)
            for process in processes.end(left, grace_s):
                say(f"process {process.pid} did not end in {grace_s:g} s and was killed")


def _wait_for_others(directory: Path) -> None:
    told = False
    while others := leftovers.live_runs(directory):
        if not told:
            say(f"waiting: process {others[0]} runs the workflow in this directory")
            told = True
        time.sleep(0.5)


def config_files(options: list[str]) -> list[Path]:
    """Return the config files that Snakemake is given with `options`."""
    files: list[Path] = []
    taking = False
    for option in options:
        name, _, value = option.partition("=")
        if option.startswith("-"):
            named = name in ("--configfile", "--configfiles")
            files += [Path(value)] if named and value else []
            taking = named and not value
        elif taking:
            files.append(Path(option))
    return files


def launch(options: list[str], directory: Path) -> int:
    """Run Snakemake in `directory` and return its exit code, or 128 + N after signal N.

    Raises:
        ConfigError: a config file cannot be read; Snakemake itself would not tell which.
    """
    for path in config_files(options):
        if path.suffix != ".json":
            read_keys(directory / path, "a config")
    with held(directory / ".snakemake" / "launch.lock", "the workflow in this directory"):
        _wait_for_others(directory)
        leftovers.clean_up(directory)
        return Launch(options, directory).wait()


def main() -> int:
    """Run from the command line."""
    try:
        return launch(sys.argv[1:], Path.cwd())
    except JellyfishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
