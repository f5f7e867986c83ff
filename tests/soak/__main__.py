"""`python -m tests.soak`: faults against a real server, clients and network, for some minutes."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from jellyfish.errors import JellyfishError
from jellyfish.files.atomic import write_json
from tests.chaos.faults import Fault
from tests.soak import figure
from tests.soak.checks import Struck, Violation, share
from tests.soak.faults import KINDS, draw
from tests.soak.life import unmount
from tests.soak.precedence import precedence
from tests.soak.run import DISK, MODEL, Outcome, Soak, as_json


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    parser.add_argument("--kinds", help="only these, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("results/soak"), help="(results/soak)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; return 1 if something did not hold."""
    options = _arguments(arguments)
    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    if unknown := sorted(set(kinds) - set(KINDS)):
        print(f"soak: no kind {unknown[0]!r}; there are: {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if not clear(options.out):
        print(
            f"soak: {options.out} is not empty and no soak's; give another --out", file=sys.stderr
        )
        return 2
    length_s = options.minutes * 60
    faults = draw(options.seed, length_s, kinds)
    with precedence():
        seen = asyncio.run(_run(options.out.resolve(), faults, length_s, options.seed))
    if seen is None:
        return 1
    write_json(options.out / "soak.json", as_json(seen, options.seed))
    print(table(seen))
    note = f"seed {options.seed} · {len(seen.struck)} faults · python -m tests.soak"
    span = (seen.begin_s, seen.end_s)
    violated = [violation.time_s for _, violation in violations(seen)]
    paths = figure.draw(
        options.out / "soak", seen.samples, seen.struck, seen.frames, span, violated, note
    )
    print(f"{options.out / 'soak.json'}, {paths[0]}")
    return 1 if violations(seen) else 0


async def _run(folder: Path, faults: list[Fault], length_s: float, seed: int) -> Outcome | None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    soak = Soak(folder, faults, length_s, seed)
    if not soak.own_disk:
        print("no tmpfs here (that takes root): the disk is never full in this soak")
        soak.leave_out("disk full")
    try:
        return await soak.run(stop)
    except JellyfishError as error:
        print(f"soak: {error}", file=sys.stderr)
        return None


def clear(out: Path) -> bool:
    """Remove what an earlier soak left, one that was killed included; refuse anything else."""
    if not out.exists() or not any(out.iterdir()):
        return True
    if not any((out / part).exists() for part in (MODEL, DISK)):
        return False
    unmount(out / DISK)
    shutil.rmtree(out)
    return True


def violations(seen: Outcome) -> list[tuple[Struck | None, Violation]]:
    """Return all that did not hold, with the fault in whose time it falls."""
    mine = [(one, violation) for one in seen.struck for violation in one.violations]
    return [*mine, *((None, violation) for violation in seen.violations)]


def table(seen: Outcome) -> str:
    """Return a line a kind of fault, and below what did not hold."""
    by_kind: dict[str, list[Struck]] = defaultdict(list)
    for one in seen.struck:
        by_kind[one.fault.kind].append(one)
    head = (
        f"{'fault':<22} {'count':>5} {'lost':>6} {'recovery p50':>12} {'max':>7} {'violations':>10}"
    )
    lines = [head, "-" * len(head)]
    for kind in sorted(by_kind):
        some = by_kind[kind]
        lines.append(
            f"{kind:<22} {len(some):>5} {sum(s.lost for s in some):>6} "
            f"{_recoveries(some)} {sum(len(s.violations) for s in some):>10}"
        )
    whole = seen.frames.count(seen.begin_s, seen.end_s)
    disturbed = sum(one.disturbed for one in seen.struck)
    lines += [
        "",
        f"{(seen.end_s - seen.begin_s) / 60:.1f} minutes, {whole[0]} frames, {share(whole):.1%} in "
        f"time, {len(seen.struck)} faults, {disturbed} of them not judged (the machine was busy)",
    ]
    for struck, violation in violations(seen):
        at = (
            ""
            if violation.time_s != violation.time_s
            else f"{violation.time_s - seen.begin_s:.1f} s: "
        )
        of = "" if struck is None else f" [{struck.fault.kind}, {struck.fault.target}]"
        lines.append(f"VIOLATION {violation.check}: {at}{violation.text}{of}")
    return "\n".join(lines)


def _recoveries(some: list[Struck]) -> str:
    if any(one.recovery_s is None for one in some):
        known = sorted(one.recovery_s for one in some if one.recovery_s is not None)
        middle = f"{median(known):.2f} s" if known else "-"
        return f"{middle:>12} {'never':>7}"
    known = [one.recovery_s for one in some if one.recovery_s is not None]
    return f"{f'{median(known):.2f} s':>12} {f'{max(known):.2f} s':>7}"


if __name__ == "__main__":
    sys.exit(main())
