"""Look at a scenario's hosts before anything is measured: what each is, and whether all is well.

Each is reached, and what a measured cell needs is put there, as before a cell. With --dry-run, no
right to shape is needed: it prints what tc would be told as root on each client host, in the run
with the most clients, and tells it nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiment import grid
from experiment.fleet import Fleet
from experiment.grid import Config, Run
from experiment.paths import ROOT
from jellyfish.errors import ConfigError, JellyfishError
from scripts import scenario


def read_config(path: Path | None, hosts: Path | None, root: Path = ROOT) -> Config:
    """Return the default config with a scenario's laid over it, checked; relative to here.

    Args:
        path: the scenario's file.
        hosts: the hosts file, in the place of the scenario's.
        root: the checkout.

    Raises:
        ConfigError: a file cannot be read or used, no hosts are named, or nothing is measured.
    """
    config = scenario.read(path, root)
    if hosts is not None:
        config["hosts"] = str(hosts.absolute())
    cells = scenario.load(config, root).cells.values()
    if config["hosts"] is None:
        raise ConfigError("the scenario names no hosts; say --hosts FILE")
    if not any(cell.world == "measured" for cell in cells):
        raise ConfigError("the scenario measures nothing: no block of its grid is `measured`")
    return config


def largest_run(config: Config) -> Run:
    """Return the first measured run of those with the most clients."""
    measured = [cell for cell in grid.cells(config) if cell.world == "measured"]
    cell = max(measured, key=lambda cell: (cell.trace != "none", len(cell.clients)))
    return grid.runs(config, cell)[0]


def show(fleet: Fleet) -> None:
    """Print a line a host."""
    shaper = {spec.name: spec.shaper for spec in fleet.spec.clients}
    for name, told in fleet.description()["hosts"].items():
        role = f"clients, shaped by {shaper[name]}" if name in shaper else "server"
        print(
            f"{name} ({told['address']}): {role}; {told['system']}; Python {told['version']}, "
            f"{told['cores']} cores, {told['free_mb'] / 1000:.0f} GB free at {told['work']}, "
            f"clock {told['clock_offset_s']:+.1f} s"
        )


def show_commands(fleet: Fleet, run: Run) -> None:
    """Print what tc would be told in `run`, host by host."""
    print(f"\nIn the run {run.key}, jellyfish-tc would tell tc, as root:")
    for name, commands in fleet.shaping_commands(run).items():
        print(f"\n# on {name}\n{commands}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at the hosts; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.hosts", description=__doc__)
    parser.add_argument("--configfile", type=Path, help="the scenario (config/config.yaml)")
    parser.add_argument("--hosts", type=Path, help="the hosts file, if not the scenario's")
    parser.add_argument("--dry-run", action="store_true", help="print the commands that need root")
    options = parser.parse_args(arguments)
    try:
        config = read_config(options.configfile, options.hosts)
        print("Reaching the hosts; where little is there yet, supplying them takes minutes")
        sys.stdout.flush()
        with Fleet(config, ROOT, shapes=not options.dry_run) as fleet:
            show(fleet)
            if options.dry_run:
                show_commands(fleet, largest_run(config))
    except JellyfishError as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
