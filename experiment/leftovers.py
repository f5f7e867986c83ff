"""What a killed workflow run leaves in a directory: processes and Snakemake's lock.

Every process of a run carries the directory of the run in its environment (`MARK`), so that the
next run finds those that outlived it, also when they were started by something in between.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from experiment import processes
from experiment.processes import ProcessId

MARK = "JELLYFISH_RUN_IN"
# What --forcerun named, one a line (rule names, files; `*` for everything): the runs of a cell
# are no outputs of Snakemake's, which therefore cannot remove them before it measures again.
FORCED = "JELLYFISH_FORCERUN"
GRACE_S = 12.0  # more than a guarded script takes at most (experiment.guard)


def is_forced(rule: str, output: Path) -> bool:
    """Whether --forcerun named the job of `rule` that makes `output`."""
    named = os.environ.get(FORCED, "").splitlines()
    return any(name in named for name in ("*", rule, str(output)))


def say(text: str) -> None:
    """Tell the user, on the stream that Snakemake uses too."""
    print(f"jellyfish: {text}", file=sys.stderr, flush=True)


def runs_workflow(command: Sequence[str]) -> bool:
    """Whether a command line is Snakemake itself (not a job of it) or the launcher."""
    launcher = _is(command, "experiment.launch")
    return launcher or (_is(command, "snakemake") and not runs_job(command))


def runs_job(command: Sequence[str]) -> bool:
    """Whether a command line is a Snakemake that another one started for a job, here or on a
    node of a cluster."""
    return any(("--mode", mode) in pairwise(command) for mode in ("subprocess", "remote"))


def belongs_above(command: Sequence[str]) -> bool:
    """Whether a command line is one that a stage should not outlive: Snakemake, launcher, make."""
    return any(_is(command, name) for name in ("make", "snakemake", "experiment.launch"))


def _is(command: Sequence[str], program: str) -> bool:
    started = any(_name(word) == program for word in command[:2])
    return started or ("-m", program) in pairwise(command[:6])


def _name(word: str) -> str:
    return word.rsplit("/", 1)[-1]


def live_runs(directory: Path) -> list[ProcessId]:
    """Return the workflow runs in `directory` that are alive, without this one."""
    own = _own()
    return [
        process
        for process in processes.every()
        if process.pid not in own
        and runs_workflow(processes.command(process.pid))
        and processes.directory(process.pid) == directory.resolve()
        and process.alive
    ]


def leftovers(directory: Path) -> list[ProcessId]:
    """Return the living processes of runs in `directory`, without this one's."""
    own = _own()
    mark = str(directory.resolve())
    return [
        process
        for process in processes.every()
        if process.pid not in own
        and processes.environment(process.pid).get(MARK) == mark
        and process.alive
    ]


def _own() -> set[int]:
    me = os.getpid()
    family = [*processes.ancestors(), *processes.descendants(me)]
    return {me, *(process.pid for process in family)}


def clean_up(directory: Path, tell: Callable[[str], None] = say) -> None:
    """End what a killed run left alive in `directory` and remove Snakemake's lock.

    Only for who knows that no run is alive there.
    """
    left = leftovers(directory)
    for process in left:
        tell(f"a killed run left process {process}; ending it")
    for process in processes.end(left, GRACE_S):
        tell(f"process {process.pid} did not end in {GRACE_S:g} s and was killed")
    locks = list((directory / ".snakemake" / "locks").glob("*.lock"))
    if locks:
        tell("a killed run left Snakemake's lock; removing it")
    for lock in locks:
        lock.unlink(missing_ok=True)


def enter(directory: Path) -> None:
    """Take over `directory` for a Snakemake started by hand; called when a Snakefile is read.

    Does nothing in jobs of a run (on a cluster's node, nothing else tells that the run is alive),
    under the launcher (which has done it), and while another run is alive in the directory:
    Snakemake's own lock then decides.
    """
    job = runs_job(processes.command(os.getpid()))
    above = (processes.command(process.pid) for process in processes.ancestors())
    if not (job or any(map(runs_workflow, above)) or live_runs(directory)):
        clean_up(directory)
    os.environ[MARK] = str(directory.resolve())
