"""A cell: its runs, one after another, those that are complete left as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from experiment.collect import summary
from experiment.grid import Cell, Config, Run, cells, digest, of_cell, run_settings, runs, span_s
from experiment.leftovers import is_forced
from experiment.lock import on_testbed
from experiment.paths import ROOT, run_folder
from experiment.progress import progress
from experiment.run import execute
from experiment.simulation import is_current, simulate
from jellyfish.errors import ConfigError
from jellyfish.files.atomic import write_json
from jellyfish.files.provenance import is_complete
from jellyfish.policy import policy
from jellyfish.scheduling import solvers

RULES = {"measured": "cell", "simulated": "simulated_cell"}  # world -> its name in the workflow

AROUND_S = 8.0  # start, last answers and writing of a measured run


def run_cell(config: Config, cell: Cell, results: Path, root: Path = ROOT) -> Path:
    """Do every run of `cell` that is not complete; return the path of the cell's index.

    A measured cell holds the testbed meanwhile: this machine, or the config's hosts. The index,
    results/SCENARIO/cells/NAME.json, is written last: the cell's values and, a run, its key and
    how many frames had which outcome.

    Raises:
        RunError: a run failed; runs done before are kept.
        DataError: an input is missing, or the disk is full.
        ConfigError: there is no such world, or it has no such device.
    """
    if cell.world not in RULES:
        raise ConfigError(
            f"cell {cell.name}: no world {cell.world!r}; there are {', '.join(RULES)}"
        )
    config = of_cell(config, cell)
    index = _index(config, cell, results)
    wanted = runs(config, cell)
    if is_forced(RULES[cell.world], index):
        for run in wanted:
            shutil.rmtree(run_folder(run.key, results), ignore_errors=True)
    missing = [run for run in wanted if not complete(config, run, results, root)]
    with (
        progress(heading(config, cell, results), len(wanted)) as bar,
        _doing(config, cell, bool(missing), root, bar.note) as do,
    ):
        for run in wanted:
            if run in missing and not complete(config, run, results, root):
                do(config, run, results, root)
            bar()
    rows = [summary(run, run_folder(run.key, results)) for run in wanted]
    write_json(index, {"cell": cell.name, "runs": rows})
    return index


def _index(config: Config, cell: Cell, results: Path) -> Path:
    return results / str(config["scenario"]) / "cells" / f"{cell.name}.json"


def heading(config: Config, cell: Cell, results: Path) -> str:
    """Return the cell's name and, where it is measured, how far the grid is."""
    if cell.world == "simulated":
        return cell.name
    every = [other for other in cells(config) if other.world == cell.world]
    left = [other for other in every if not _index(config, other, results).exists()]
    left_s = sum(_takes_s(config, other) for other in left)
    done = len(every) - len(left)
    return f"{done} of {len(every)} cells done, {left_s / 60:.0f} min left: {cell.name}"


def _takes_s(config: Config, cell: Cell) -> float:
    """Return about how long a measured cell takes."""
    streams_s = span_s(of_cell(config, cell)["client"], len(cell.clients))
    return (streams_s + AROUND_S) * len(cell.clips) * cell.repetitions


@contextmanager
def _doing(
    config: Config, cell: Cell, needed: bool, root: Path, tell: Callable[[str], None]
) -> Iterator[Callable[..., Path]]:
    """Yield what does a run, holding what it needs meanwhile, if there is anything to do."""
    if not needed or cell.world == "simulated":
        yield simulate
    elif config["hosts"] is None:
        tell("compiling its scheduler, where that was not done yet: about a minute")
        solvers.warm(policy(cell.policy).solver)  # a server's start is no time for it
        tell("starting")
        with on_testbed():
            yield partial(execute, tell=tell)
    else:
        from experiment.fleet import Fleet  # and with it SSH, which nothing else here needs

        tell("reaching its hosts (minutes, the first time)")
        with Fleet(config, root) as hosts:
            tell("starting")
            yield partial(execute, hosts=hosts, tell=tell)


def complete(config: Config, run: Run, results: Path, root: Path = ROOT) -> bool:
    """Whether the directory of `run` is there, whole, and made with these config values.

    A simulated one must also be of the present profile and code: it is cheap to make again.
    """
    if run.cell.world == "simulated":
        return is_current(config, run, results, root)
    settings = run_settings(config, run.cell, run.clip, run.repetition)
    return is_complete(run_folder(run.key, results), digest(settings))
