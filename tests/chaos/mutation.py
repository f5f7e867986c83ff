"""`python -m tests.chaos.mutation`: whether the seeds find each mutant."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from functools import partial

from tests.chaos.cli import of_seed
from tests.chaos.mutants import every

SEEDS = 500
FOR_CI = (  # soon found
    "a lost connection ends a client",
    "a death loses what waits",
    "a failed batch is answered twice",
)


def found_by(name: str, seeds: int = SEEDS) -> tuple[str, int | None, str, float]:
    """Return a mutant's name, the first seed that finds it, what that says, and the seconds."""
    began_s = time.monotonic()
    mutant = next(mutant for mutant in every() if mutant.name == name)
    with mutant.applied():
        for seed in range(seeds):
            verdict = of_seed(seed)
            if verdict.violations:
                return name, seed, verdict.violations[0], time.monotonic() - began_s
    return name, None, "", time.monotonic() - began_s


def main(args: Sequence[str] | None = None) -> None:
    """Print a line a mutant; exit with 1 where one lives."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ci", action="store_true", help="three of them")
    parser.add_argument("names", nargs="*", help="these alone; all by default")
    options = parser.parse_args(args)
    names = options.names or [mutant.name for mutant in every()]
    if options.ci:
        names = list(FOR_CI)
    lives = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        search = partial(found_by, seeds=options.seeds)
        for name, seed, why, took_s in pool.imap_unordered(search, names):
            lives += seed is None
            said = "LIVES" if seed is None else f"seed {seed}: {why:.100}"
            print(f"| {name} | {said} | {took_s:.0f} s |", flush=True)
    print(f"{len(names) - lives} of {len(names)} mutants found within {options.seeds} seeds")
    sys.exit(1 if lives else 0)


if __name__ == "__main__":
    main()
