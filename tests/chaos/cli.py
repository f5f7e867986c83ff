"""The command: many seeds on all cores, a table, failing seeds shrunk and kept."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tests.chaos.faults import KINDS, draw
from tests.chaos.run import Verdict, judge
from tests.chaos.shrink import CORPUS, keep, read, shrink
from tests.chaos.table import Table

CHUNK = 5  # seeds that a process takes at a time
SHRUNK = 5  # failing seeds that are shrunk and kept, at most


def of_seed(seed: int, kinds: Sequence[str] = ()) -> Verdict:
    """Return the verdict on a seed; what breaks the simulation itself is a violation, too."""
    scenario = draw(seed, kinds)
    try:
        return judge(scenario)
    except Exception as error:
        return Verdict(scenario, [f"simulation: {error!r}"])


def verdicts(seeds: Sequence[int], jobs: int, kinds: Sequence[str] = ()) -> Iterator[Verdict]:
    """Yield the verdict on each seed as it comes."""
    if jobs == 1:
        yield from (of_seed(seed, kinds) for seed in seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(partial(of_seed, kinds=kinds), seeds, CHUNK)


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone, told in full")
    parser.add_argument("--replay", type=Path, help="a scenario file of the corpus, told in full")
    parser.add_argument("--kinds", default="", help="names of kinds, by commas; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=CORPUS, help="where failing seeds go")
    parser.add_argument("--corpus", action="store_true", help="replay it first")
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--within", type=float, help="fail when it takes longer, in s")
    return parser.parse_args(args)


def tell(verdict: Verdict) -> int:
    """Print one verdict in full."""
    scenario = verdict.scenario
    print(f"seed {scenario.seed}: {scenario.gpus} GPUs, {len(scenario.clients)} clients")
    for struck in verdict.struck:
        fault = struck.fault
        print(
            f"  {fault.time_s:7.3f} s {fault.kind} ({fault.target}, {fault.value}, "
            f"{fault.for_s:g} s): {struck.hits} hits while {struck.state or 'never there'}, "
            f"over at {struck.healed_s:.3f} s"
        )
    print("\n".join(verdict.violations) or f"no violation; recovered in {verdict.recovery_s:.1f} s")
    return 1 if verdict.violations else 0


def main(args: Sequence[str] | None = None) -> None:
    """Play what the options say; exit with 1 where something was violated."""
    options = _options(args)
    kinds = tuple(name for name in options.kinds.split(",") if name)
    unknown = set(kinds) - set(KINDS)
    if unknown:
        sys.exit(f"no kind {sorted(unknown)[0]!r}; there are: {', '.join(KINDS)}")
    if options.replay is not None:
        sys.exit(tell(judge(read(options.replay))))
    if options.seed is not None:
        sys.exit(tell(of_seed(options.seed, kinds)))
    sys.exit(_many(options, kinds))


def _many(options: argparse.Namespace, kinds: Sequence[str]) -> int:
    failed: list[Verdict] = []
    relapsed: list[Path] = []
    began_s, table = time.monotonic(), Table()
    seeds = range(options.first, options.first + options.seeds)
    for path in sorted(CORPUS.glob("*.json")) if options.corpus else []:
        if (again := judge(read(path))).violations:
            print(f"corpus, {path.stem}: {again.violations[0]}", flush=True)
            relapsed.append(path)
    for verdict in verdicts(seeds, options.jobs, kinds):
        table.add(verdict)
        if verdict.violations:
            failed.append(verdict)
            print(f"seed {verdict.scenario.seed}: {verdict.violations[0]}", flush=True)
    took_s = time.monotonic() - began_s
    print("\n".join(table.lines()))
    print(f"{took_s:.0f} s: {table.virtual_s / took_s:.0f} x real time")
    for verdict in failed[:SHRUNK] if not options.no_shrink else []:
        print(f"kept: {keep(shrink(verdict), options.keep)}", flush=True)
    thin = [] if kinds else table.thin()
    for kind, state in thin:
        print(f"too few hits: {kind} while {state}: {table.hits[kind, state]}")
    late = options.within is not None and took_s > options.within
    if late:
        print(f"it took longer than {options.within:g} s")
    return 1 if failed or relapsed or thin or late else 0
