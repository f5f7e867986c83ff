"""One run: a server and its clients as processes, from their start to the run's directory.

Everything is brought to a directory beside the final one, which takes its name at the very end: a
killed run leaves nothing that looks finished. Whatever fails, all processes are ended.
"""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment import processes, provenance
from experiment.collect import collect_tables, keep_rows, tidy
from experiment.disturbance import Tries, record, watched
from experiment.grid import Config, Run, latencies, run_settings
from experiment.paths import ROOT, profile_folder, run_folder
from experiment.places import FULL_MB, here
from experiment.processes import ProcessId
from experiment.run_processes import Tell, Testbed
from jellyfish.errors import DataError, JellyfishError, RunError
from jellyfish.files.atomic import write_json
from jellyfish.files.provenance import write_provenance

if TYPE_CHECKING:
    from experiment.fleet import Fleet

MARGIN_S = 20.0  # beyond the stream: start-up of the session, last answers, writing files
MIN_FREE_MB = 32


def execute(
    config: Config,
    run: Run,
    results: Path,
    root: Path = ROOT,
    hosts: Fleet | None = None,
    tell: Tell | None = None,
) -> Path:
    """Do `run` and return its directory, written whole.

    Only for who holds the testbed's lock: this machine's, or that of the hosts given. A run that
    was disturbed is done again, as often as the config's `measuring` allows; the last is kept.

    Raises:
        RunError: server or client failed; everything has been ended, and what they wrote stays
            beside the run's directory, for a look, until the next attempt.
        DataError: an input is missing, or the disk is full.
    """
    final = run_folder(run.key, results)
    folder = final.with_name(f".{run.key}.part")
    tries, again = Tries(config["measuring"]), True
    while again:
        _attempt(config, run, folder, results, root, hosts, tell)
        again = tries.again(watched(folder))
        if tries.told.disturbed:
            what = "measured again" if again else "kept all the same"
            print(f"{run.key}: disturbed, {what}: {tries.told.of}", file=sys.stderr)
    record(folder, tries.told)
    if final.exists():
        shutil.rmtree(final)
    folder.replace(final)
    return final


def _attempt(
    config: Config,
    run: Run,
    folder: Path,
    results: Path,
    root: Path,
    hosts: Fleet | None,
    tell: Tell | None,
) -> None:
    """Do `run` once, into `folder`; raises as `execute` does."""
    started = provenance.now()
    _make_room(folder)
    at = here(folder, root) if hosts is None else hosts.placement(run.key)
    try:
        with Testbed(at, config, run, folder, results, root) as testbed:
            longest_s = testbed.start_clients(testbed.start_server())
            testbed.finish(longest_s + MARGIN_S, tell)
        collect_tables(config, run, folder)
        tidy(folder)
        if hosts is not None:
            write_json(folder / "hosts.json", hosts.description())
        write_provenance(folder, _provenance(config, run, started, results, root, hosts))
    except (RunError, OSError) as error:
        _keep(config, run, folder, error)
        raise _explained(error, run, folder) from error


def _keep(config: Config, run: Run, folder: Path, error: Exception) -> None:
    """Put together what is there of a failed run; should that fail too, the first error counts."""
    try:
        keep_rows(config, run, folder, str(error).splitlines()[0])
    except (DataError, OSError) as second:
        print(f"while ending: {second}", file=sys.stderr)


def _explained(error: Exception, run: Run, folder: Path) -> JellyfishError:
    """Return the error with its run; a full disk is told as such, since logs cannot tell it."""
    if _free_mb(folder) < FULL_MB or getattr(error, "errno", None) == errno.ENOSPC:
        return DataError(f"{run.key}: the disk of {folder.parent} is full: {error}")
    return RunError(f"{run.key}: {error}\n  (all it wrote: {folder})")


def _free_mb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e6


def _make_room(folder: Path) -> None:
    """Make `folder` anew, once nothing that a killed run left there is alive or in the way."""
    if folder.exists():
        for path in folder.glob("*.pid"):
            pid, start = map(int, path.read_text().split())
            processes.end([ProcessId(pid, start)], grace_s=0.0)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if (free_mb := _free_mb(folder)) < MIN_FREE_MB:
        folder.rmdir()
        raise DataError(
            f"the disk of {folder.parent} is full: {free_mb:.0f} MB free; "
            f"a run needs up to {MIN_FREE_MB} MB"
        )


def _provenance(
    config: Config, run: Run, started: str, results: Path, root: Path, hosts: Fleet | None
) -> Any:
    profile = profile_folder(config, run.cell.device, results) / "profile.json"
    return provenance.collect(
        key=run.key,
        settings=run_settings(config, run.cell, run.clip, run.repetition),
        world=run.cell.world,
        seed=run.seed,
        device=latencies(config, run.cell.device),
        started=started,
        digests={"profile": provenance.file_digest(profile)},
        root=root,
        machine=None if hosts is None else hosts.machine(),
    )
