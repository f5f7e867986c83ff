"""`python -m tests.soak.compare --scripts 50`: the same scenarios in real and in virtual time.

Scenarios are those of tests.chaos, as drawn. Each is played by real processes over real gRPC and by
the simulation, whose workers and servers take as long to start and end as the real ones did. For
each kind of fault it prints which share of the frames was lost from the strike until all must be as
before, and how long recovery took, and fails where the worlds differ by more than a margin:

- LOST, of the frames, and twice the standard error of the mean difference. The real world adds
  what no simulation has: some milliseconds of gRPC, Python and a scheduler that serves others, too.
  They cost a frame where its deadline is close: under overload, and while a backlog is worked off.
- RECOVERY_S, of the median: a plan's interval (0.5 s), and a frame of the slowest client (1 frame/s
  in a scenario with many of them) by which a window may be off.

Kinds that fewer than FEWEST faults of both worlds hit are printed and not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, isnan, nan, sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from jellyfish.files.atomic import read_json, write_json
from jellyfish.records import Outcome
from tests.chaos import children, strikes
from tests.chaos import world as worlds
from tests.chaos.baseline import MARGIN
from tests.chaos.faults import Scenario, draw
from tests.chaos.invariants import RECOVERED_S, SETTLED_S
from tests.chaos.run import play
from tests.soak.precedence import precedence
from tests.soak.twin import READY_S, Twin

SIMULATED_ONLY = {  # kinds that nothing real can be made to do, and why
    "wall clock steps": "it is the machine's clock, and others use it",
}
LOST, RECOVERY_S, FEWEST = 0.05, 1.0, 4
BEFORE, WHOLE = "(before any fault)", "(the whole script)"
LAST_S = 29.5  # of a script; what is captured afterwards may be under way at its end
LONGEST_S = 6.0  # of a recovery
LATE_S, WAITED_S = 0.8, 45.0  # a script that was kept waiting for longer in all says little


def scenario_of(seed: int) -> Scenario:
    """Return the scenario of a seed, without what cannot be played in real time."""
    drawn = draw(seed)
    return drawn.with_faults([f for f in drawn.faults if f.kind not in SIMULATED_ONLY])


# --- playing


def told(world: Any, frames: Any, **more: Any) -> dict[str, Any]:
    """Return what came of a scenario, in either world."""
    struck = [
        {
            "kind": one.fault.kind,
            "target": one.fault.target,
            "state": one.state,
            "hits": one.hits,
            "struck_s": None if one.struck_s == inf else round(one.struck_s, 3),
            "healed_s": None if one.healed_s == inf else round(one.healed_s, 3),
        }
        for one in world.struck
    ]
    errors = [one.error for one in world.streamed if one.error]
    return {"struck": struck, "frames": frames, "errors": errors, **more}


def frames_of(world: Any, zero_s: float = 0.0) -> list[tuple[float, bool]]:
    """Return each frame's time of capture, and whether it was in time.

    Those of a session that ended early are lost.
    """
    frames = []
    for client, streamed in zip(world.scenario.clients, world.streamed, strict=True):
        rows = streamed.rows
        frames += [(round(row.capture_s - zero_s, 3), row.outcome is Outcome.OK) for row in rows]
        next_s = rows[-1].capture_s - zero_s + 1 / client.fps if rows else client.start_s
        missing = max(0, ceil((world.scenario.length_s - next_s) * client.fps))
        frames += [(round(next_s + k / client.fps, 3), False) for k in range(missing)]
    return frames


async def _real(scenario: Scenario, folder: Path) -> dict[str, Any]:
    twin = Twin(scenario, folder)
    try:
        await twin.play()
    finally:
        twin.end_at_once()
    return told(
        twin,
        frames_of(twin, twin.loop.zero_s),
        worker_start_s=twin.worker_start_s,
        server_start_s=twin.start_s,
        server_end_s=twin.end_s,
        waited_s=round(twin.waited_s, 3),
        late_s=round(sum(late_s for _, late_s in twin.late.seen), 3),
    )


def play_real(seed: int, out: Path) -> None:
    """Play a seed in real time and write down what came of it."""
    scenario, folder = scenario_of(seed), out / f"script-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    with precedence():
        real = asyncio.run(_real(scenario, folder))
    write_json(out / f"{seed}.json", {"scenario": scenario.to_json(), "real": real})


def simulated(
    scenario: Scenario, worker_start_s: float, server_start_s: float, server_end_s: float
) -> dict[str, Any]:
    """Return what comes of a scenario where workers and servers take so long to start and end."""
    before = children.START_S, strikes.RESTART_S, worlds.END_S
    children.START_S = worker_start_s - children.OPEN_S
    worlds.END_S = server_end_s
    strikes.RESTART_S += max(0.0, server_start_s - worker_start_s - children.LOAD_S)
    try:
        world, fresh = play(scenario), play(scenario.with_faults(()))
    finally:
        children.START_S, strikes.RESTART_S, worlds.END_S = before
    return told(world, frames_of(world), fresh=frames_of(fresh))


# --- comparing


class Frames:
    """The frames of all clients in one world."""

    def __init__(self, frames: Sequence[Sequence[Any]]) -> None:
        self._frames = sorted((capture_s, ok) for capture_s, ok in frames)

    def missed(self, begin_s: float, end_s: float) -> tuple[int, int]:
        """Return how many frames of [begin, end) were not in time, and of how many."""
        some = [ok for capture_s, ok in self._frames if begin_s <= capture_s < end_s]
        return len(some) - sum(some), len(some)

    def share(self, begin_s: float, end_s: float) -> float:
        """Return the share of frames that were not in time."""
        missed, count = self.missed(begin_s, end_s)
        return missed / count if count else nan

    def recovery_s(self, healed_s: float, fresh: Frames) -> float:
        """Return how long after `healed_s` a second was as good as one without faults."""
        for step in range(int(LONGEST_S * 10)):
            begin_s = healed_s + step / 10
            missed, count = self.missed(begin_s, begin_s + 1.0)
            want = fresh.share(begin_s, begin_s + 1.0)
            if count and missed <= want * count + max(1.0, 2 * MARGIN * count):
                return step / 10
        return LONGEST_S


@dataclass
class Compared:
    """What one kind of fault cost in both worlds, a number a fault."""

    frames: int = 0
    real: list[float] = field(default_factory=list)
    simulated: list[float] = field(default_factory=list)
    real_s: list[float] = field(default_factory=list)
    simulated_s: list[float] = field(default_factory=list)

    @property
    def apart(self) -> float:
        """By how much the real share of lost frames is larger."""
        return fmean(self.real) - fmean(self.simulated)

    @property
    def margin(self) -> float:
        """By how much it may be."""
        apart = [a - b for a, b in zip(self.real, self.simulated, strict=True)]
        return LOST + (2 * stdev(apart) / sqrt(len(apart)) if len(apart) > 1 else 0.0)

    @property
    def wrong(self) -> list[str]:
        """What differs by more than may be."""
        if len(self.real) < FEWEST:
            return []
        found = ["frames lost"] if abs(self.apart) > self.margin else []
        if len(self.real_s) >= FEWEST:
            late_s = median(self.real_s) - median(self.simulated_s)
            found += ["recovery"] if abs(late_s) > RECOVERY_S else []
        return found


def compare(results: Sequence[dict[str, Any]]) -> dict[str, Compared]:
    """Return both worlds beside each other, by kind."""
    kinds: defaultdict[str, Compared] = defaultdict(Compared)
    for result in results:
        real, simulated = result["real"], result["simulated"]
        a, b = Frames(real["frames"]), Frames(simulated["frames"])
        fresh = Frames(simulated["fresh"])
        pairs = list(zip(real["struck"], simulated["struck"], strict=True))
        begin_s = min((fault["time_s"] for fault in result["scenario"]["faults"]), default=LAST_S)
        _add(kinds[WHOLE], a, b, (READY_S + SETTLED_S, LAST_S), None)
        _add(kinds[BEFORE], a, b, (READY_S + SETTLED_S, begin_s), None)
        hit = [pair for pair in pairs if pair[0]["hits"] and pair[1]["hits"]]
        for one, other in hit:
            _add(kinds[one["kind"]], a, b, _window(one), _window(other))
        last = [max(world["struck"], key=_healed_s, default=None) for world in (real, simulated)]
        if tuple(last) in hit:  # the same one in both
            kinds[last[0]["kind"]].real_s.append(a.recovery_s(_healed_s(last[0]), fresh))
            kinds[last[0]["kind"]].simulated_s.append(b.recovery_s(_healed_s(last[1]), fresh))
    return dict(sorted(kinds.items()))


def _healed_s(struck: dict[str, Any]) -> float:
    return float(struck["healed_s"] or 0.0)


def _window(struck: dict[str, Any]) -> tuple[float, float]:
    return struck["struck_s"], min(LAST_S, struck["healed_s"] + RECOVERED_S)


def _add(
    kind: Compared,
    real: Frames,
    simulated: Frames,
    window: tuple[float, float],
    other: tuple[float, float] | None,
) -> None:
    shares = real.share(*window), simulated.share(*(other or window))
    if not any(map(isnan, shares)):
        kind.frames += real.missed(*window)[1]
        kind.real.append(shares[0])
        kind.simulated.append(shares[1])


def table(kinds: dict[str, Compared]) -> Iterator[str]:
    """Yield a line a kind."""
    head = "| kind | faults | frames | lost, real / simulated, % | apart (margin), points |"
    yield head + " recovery p50 real / simulated, s | max | |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, kind in kinds.items():
        if not kind.real:
            continue
        lost = f"{100 * fmean(kind.real):.1f} / {100 * fmean(kind.simulated):.1f}"
        apart = f"{100 * kind.apart:+.1f} ({100 * kind.margin:.1f})"
        middle = " / ".join(f"{median(s):.1f}" if s else "-" for s in _recoveries(kind))
        most = " / ".join(f"{max(s):.1f}" if s else "-" for s in _recoveries(kind))
        wrong = ", ".join(kind.wrong) or ("few" if len(kind.real) < FEWEST else "")
        counts = f"{len(kind.real)} | {kind.frames}"
        yield f"| {name} | {counts} | {lost} | {apart} | {middle} | {most} | {wrong} |"


def _recoveries(kind: Compared) -> tuple[list[float], list[float]]:
    return kind.real_s, kind.simulated_s


# --- the command


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.compare", description=__doc__)
    parser.add_argument("--scripts", type=int, default=50, help="how many (50)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one (0)")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time (1)")
    parser.add_argument("--out", type=Path, default=Path("results/soak-compare"))
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help="simulate anew what was played")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what has not been played yet; print the table; return 1 if the worlds differ."""
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.play is not None:
        play_real(options.play, options.out)
        return 0
    seeds = range(options.first, options.first + options.scripts)
    paths = {seed: options.out / f"{seed}.json" for seed in seeds}
    _play_all([seed for seed in seeds if not paths[seed].exists()], options.out, options.jobs)
    results = [
        result
        for seed, path in paths.items()
        if (result := _result(seed, path, options.again)) is not None
    ]
    kinds = compare(results)
    print("\n".join(table(kinds)))
    for name, why in SIMULATED_ONLY.items():
        print(f"simulated only: {name}: {why}")
    wrong = [name for name, kind in kinds.items() if kind.wrong]
    print(f"{len(results)} scripts; the worlds differ in: {', '.join(wrong) or 'nothing'}")
    return 1 if wrong or len(results) < len(seeds) / 2 else 0


def _result(seed: int, path: Path, again: bool) -> dict[str, Any] | None:
    """Return what came of a script in both worlds; None where that says nothing."""
    if not path.exists():
        print(f"script {seed} has no result: see {path.with_suffix('.log')}")
        return None
    result: dict[str, Any] = read_json(path)
    real = result["real"]
    if real["late_s"] > LATE_S or real["waited_s"] > WAITED_S:
        waits = f"the soak by {real['late_s']:.1f} s, its threads for {real['waited_s']:.0f} s"
        print(f"script {seed} is left out, others kept it waiting: {waits}")
        return None
    if again or "simulated" not in result:
        scenario = Scenario.from_json(result["scenario"])
        took_s = [real[key] for key in ("worker_start_s", "server_start_s", "server_end_s")]
        write_json(path, result | {"simulated": simulated(scenario, *took_s)})
        return _result(seed, path, again=False)
    errors = [len(result[world]["errors"]) for world in ("real", "simulated")]
    if any(errors):
        print(
            f"script {seed}: {errors[0]} real and {errors[1]} simulated clients had no first server"
        )
    return result


def _play_all(seeds: Sequence[int], out: Path, jobs: int) -> None:
    waiting, running = list(seeds), dict[int, subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            seed = waiting.pop(0)
            command = [sys.executable, "-m", "tests.soak.compare", "--play", str(seed)]
            with (out / f"{seed}.log").open("wb") as log:
                running[seed] = subprocess.Popen(
                    [*command, "--out", str(out)], stdout=log, stderr=log
                )
        time.sleep(0.2)
        for seed in [seed for seed, process in running.items() if process.poll() is not None]:
            code = running.pop(seed).returncode
            print(f"script {seed} {'played' if code == 0 else 'FAILED'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
