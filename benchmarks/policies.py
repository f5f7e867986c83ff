"""Two policies on the same runs: `python -m benchmarks.policies [--seeds N] [--jobs N]`.

By default ours against the published one on the whole published grid, config/heldout.yaml, with
seeds that nothing was tuned on: per trace the share of frames missed, counted from the tick and
from sending, and F1 over all frames captured, pooled over cells, clips and seeds; and the ratio of
misses and the gain in F1 with their 95 % bootstrap intervals over seeds. Runs in virtual time,
without Snakemake; it needs the detections and the profile that `make simulated` leaves behind.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiment.grid import Config, Run, cells, runs
from experiment.paths import ROOT, detections_path, zoo_of
from experiment.simulation import scene_of
from experiment.virtual_serving import serve
from jellyfish.files.clip_detections import read_clip_detections
from jellyfish.matching import Rule, strict
from jellyfish.policy import Policy, policy
from jellyfish.records import FrameRow, Outcome
from scripts import scenario

RESAMPLED = 10_000
FRAMES, FROM_TICK, FROM_SEND, TP, FP, FN = range(6)

Floats = NDArray[np.float64]
Counted = dict[int, list[tuple[int, int, int]]]  # per size in px and frame: tp, fp, fn


def config_of(path: Path, seed: int | None = None) -> dict[str, Any]:
    """Return the config in the file at `path`, laid over the default one.

    With `seed`, that of all that is random, generated traces included.
    """
    config = scenario.read(path, ROOT)
    if seed is not None:
        config["seed"] = seed
        for trace in config["traces"].values():
            if trace["kind"] == "generated":
                trace["seed"] = seed
    return config


def tally(config: Config, run: Run, serves: Policy, results: Path) -> Floats:
    """Return (6,) what `run` came to under a policy: frames, misses twice, and TP, FP, FN."""
    scene = replace(scene_of(config, run, results), policy=serves)
    found, reference = _counted(*_paths(config, run.clip, results, tuple(scene.sizes)))
    total = np.zeros(6)
    for rows in serve(scene).rows:
        for row in rows:
            total += _counts(row, found, reference)
    return total


def _counts(row: FrameRow, found: Counted, reference: Sequence[int]) -> tuple[int, ...]:
    if row.outcome is Outcome.OK:
        return 1, 0, 0, *found[min(row.dnn_px, row.px_sent)][row.clip_frame]
    sent_in_time = row.outcome is Outcome.LATE and row.send_ms <= row.slo_ms
    return 1, 1, int(not sent_in_time), 0, 0, reference[row.clip_frame]


def _paths(
    config: Config, clip: str, results: Path, sizes: tuple[int, ...]
) -> tuple[tuple[tuple[int, Path], ...], Path, Rule]:
    zoo = zoo_of(config, ROOT)
    rule = Rule.from_config(config["scoring"], zoo.labels)
    by_size = tuple((px, detections_path(config, clip, px, results)) for px in sizes)
    return by_size, detections_path(config, clip, zoo.reference_px, results), rule


@cache
def _counted(
    sizes: tuple[tuple[int, Path], ...], reference: Path, rule: Rule
) -> tuple[Counted, list[int]]:
    """Match every answer that a clip's frames can get, once; and count what there is to find."""
    wanted = read_clip_detections(reference).frames
    found = {}
    for px, path in sizes:
        counts = strict(read_clip_detections(path).frames, wanted, rule)
        found[px] = list(
            zip(counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist(), strict=True)
        )
    there = [tp + fn for tp, _, fn in next(iter(found.values()))]
    return found, there


def jobs_of(options: argparse.Namespace) -> Iterator[tuple[str, str, int, Config, Run, str]]:
    """Yield trace, name of the cell, seed, config, run and policy of all that is to be run."""
    first = int(config_of(options.config)["seed"])
    for seed in range(first, first + options.seeds):
        config = config_of(options.config, seed)
        names = list(dict.fromkeys(cell.policy for cell in cells(config)))
        there = [cell for cell in cells(config) if cell.policy == names[0]]
        for cell in islice(there, (seed - first) % options.every, None, options.every):
            plain = cell.name.replace(f"-{names[0]}-", "-")
            for run in runs(config, cell):
                for name in options.policies or names:
                    yield cell.trace, plain, seed, config, run, name


def _do(job: tuple[str, str, int, Config, Run, str, Path]) -> tuple[str, str, int, str, Floats]:
    trace, cell, seed, config, run, name, results = job
    return trace, cell, seed, name, tally(config, run, policy(name), results)


def interval(
    ours: Floats, theirs: Floats, value: Callable[[Floats, Floats], Floats]
) -> tuple[float, float, float]:
    """Return `value` of sums over seeds, and the ends of its 95 % bootstrap interval.

    Args:
        ours, theirs: (S, 6) tallies by seed.
        value: of (..., 6) tallies of the two.
    """
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLED, len(ours)))
    low, high = np.percentile(value(ours[drawn].sum(1), theirs[drawn].sum(1)), [2.5, 97.5])
    return float(value(ours.sum(0), theirs.sum(0))), float(low), float(high)


def f1(total: Floats) -> Floats:
    """Return F1 of (..., 6) tallies."""
    double = 2 * total[..., TP]
    return np.asarray(double / (double + total[..., FP] + total[..., FN]))


def misses_ratio(which: int) -> Callable[[Floats, Floats], Floats]:
    """Return what gives our share of misses over theirs; 0 where nobody misses."""

    def ratio(ours: Floats, theirs: Floats) -> Floats:
        a = ours[..., which] / ours[..., FRAMES]
        b = theirs[..., which] / theirs[..., FRAMES]
        with np.errstate(all="ignore"):
            return np.where(a == 0, 0.0, a / b)

    return ratio


def report(by: Mapping[tuple[str, str, int, str], Floats]) -> str:
    """Return the tables: traces, then the cells in which the second policy is worse."""
    theirs, *others = dict.fromkeys(key[3] for key in by)
    lines = [
        "| trace | policy | missed, tick % | missed, send % | F1 |"
        " misses, ratio (tick) | (send) | F1 gained |",
        "|" + "---|" * 8,
    ]
    for trace in dict.fromkeys(key[0] for key in by):
        base = _by_seed(by, trace, theirs)
        lines.append(f"{_values(trace, theirs, base)} | | |")
        for name in others:
            ours = _by_seed(by, trace, name)
            spans = [
                "{:.3f} [{:.3f}, {:.3f}]".format(*interval(ours, base, misses_ratio(which)))
                for which in (FROM_TICK, FROM_SEND)
            ]
            gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(
                *interval(ours, base, lambda a, b: np.asarray(f1(a) - f1(b)))
            )
            lines.append(f"{_values(trace, name, ours)} {spans[0]} | {spans[1]} | {gain} |")
    return "\n".join([*lines, "", *_worse(by, theirs, others)])


def _by_seed(
    by: Mapping[tuple[str, str, int, str], Floats], trace: str, name: str
) -> NDArray[np.float64]:
    sums: dict[int, Floats] = defaultdict(lambda: np.zeros(6))
    for (of, _, seed, serves), total in by.items():
        if (of, serves) == (trace, name):
            sums[seed] = sums[seed] + total
    return np.stack([sums[seed] for seed in sorted(sums)])


def _values(trace: str, name: str, by_seed: Floats) -> str:
    total = by_seed.sum(0)
    tick, send = 100 * total[[FROM_TICK, FROM_SEND]] / total[FRAMES]
    return f"| {trace} | {name} | {tick:.4f} | {send:.4f} | {f1(total):.4f} |"


def _worse(
    by: Mapping[tuple[str, str, int, str], Floats], theirs: str, others: Sequence[str]
) -> list[str]:
    cell_of: dict[tuple[str, str], Floats] = defaultdict(lambda: np.zeros(6))
    for (_, cell, _, name), total in by.items():
        cell_of[cell, name] = cell_of[cell, name] + total
    names = dict.fromkeys(cell for cell, _ in cell_of)
    lines = []
    for name in others:
        more = [c for c in names if cell_of[c, name][FROM_TICK] > cell_of[c, theirs][FROM_TICK]]
        less = [c for c in names if f1(cell_of[c, name]) < f1(cell_of[c, theirs])]
        lines.append(f"{name}: of {len(names)} cells, more misses in {len(more)} {more}")
        lines.append(f"{name}: of {len(names)} cells, less F1 in {len(less)} {less}")
    return lines


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "config/heldout.yaml")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--policies", nargs="*", help="the config's if none are named")
    parser.add_argument("--seeds", type=int, default=5, help="from the config's seed on")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth cell")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    todo = [(*job, options.results) for job in jobs_of(options)]
    by: dict[tuple[str, str, int, str], Floats] = defaultdict(lambda: np.zeros(6))
    with get_context("spawn").Pool(options.jobs) as pool:
        for done, (trace, cell, seed, name, total) in enumerate(pool.imap(_do, todo), 1):
            by[trace, cell, seed, name] = by[trace, cell, seed, name] + total
            print(f"\r{done} of {len(todo)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(report(by))


if __name__ == "__main__":
    main()
