"""`python -m tests.chaos.mutation`: whether the seeds find each mutant.

A mutant's name in a file of the corpus says that its scenario, shrunk, finds it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.chaos.cli import of_seed
from tests.chaos.mutants import Mutant, every
from tests.chaos.run import Verdict, judge
from tests.chaos.shrink import CORPUS, keep, mutant_of, read, shrink

SEEDS = 500
CI_SEEDS = 60  # for what its scenario in the corpus does not find any more


class Found(NamedTuple):
    """What became of a mutant; `by` is empty where it lives."""

    name: str
    by: str
    why: str
    took_s: float


def search(name: str, seeds: Sequence[int], corpus: bool, folder: Path | None) -> Found:
    """Return what finds a mutant first.

    Args:
        name: the mutant's.
        seeds: that are played, in order.
        corpus: whether its scenarios of the corpus are played before.
        folder: where the shrunk scenario of the seed that finds it is kept; None for nowhere.
    """
    began_s = time.monotonic()
    mutant = next(mutant for mutant in every() if mutant.name == name)
    with mutant.applied():
        for by, verdict in _verdicts(mutant, seeds, corpus):
            if verdict.violations:
                took_s = time.monotonic() - began_s
                if folder is not None and by.startswith("seed"):
                    keep(shrink(verdict), folder, mutant=name)
                return Found(name, by, verdict.violations[0], took_s)
    return Found(name, "", "", time.monotonic() - began_s)


def _verdicts(mutant: Mutant, seeds: Sequence[int], corpus: bool) -> Iterator[tuple[str, Verdict]]:
    for path in sorted(CORPUS.glob("*.json")) if corpus else []:
        if mutant_of(path) == mutant.name:
            yield path.stem, judge(read(path))
    for seed in seeds:
        yield f"seed {seed}", of_seed(seed)


def check() -> int:
    """Print the mutants that have nothing to replace any more, and return how many."""
    gone = 0
    for mutant in every():
        try:
            with mutant.applied():
                pass
        except (AttributeError, ImportError, TypeError) as error:
            gone += 1
            print(f"mutant {mutant.name!r}: {error}")
    return gone


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ci", action="store_true", help="those in the corpus, by it or few seeds")
    parser.add_argument("--check", action="store_true", help="only that all can be put in")
    parser.add_argument("--keep", type=Path, help="where the shrunk scenarios of the seeds go")
    parser.add_argument("names", nargs="*", help="these alone; all by default")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Print a line a mutant; exit with 1 where one lives."""
    options = _options(args)
    if options.check:
        sys.exit(1 if check() else 0)
    kept = {mutant_of(path) for path in CORPUS.glob("*.json")}
    every_name = [mutant.name for mutant in every() if not options.ci or mutant.name in kept]
    names = options.names or every_name
    count = min(options.seeds, CI_SEEDS) if options.ci else options.seeds
    seeds = range(options.first, options.first + count)
    find = partial(search, seeds=seeds, corpus=options.ci, folder=options.keep)
    lives = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for found in pool.imap_unordered(find, names):
            lives += not found.by
            said = f"{found.by}: {found.why:.100}" if found.by else "LIVES"
            print(f"| {found.name} | {said} | {found.took_s:.0f} s |", flush=True)
    print(f"{len(names) - lives} of {len(names)} mutants found within {count} seeds")
    sys.exit(1 if lives else 0)


if __name__ == "__main__":
    main()
