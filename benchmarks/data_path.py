"""What the server costs a frame: `python -m benchmarks.data_path [--seconds S] [--rounds N]`.

The real `python -m server` with one emulated device next to a bare grpc.aio server that echoes
messages of the same sizes (benchmarks.bare_server), in turn, each in a process of its own; this
process is all of their clients. Medians over the rounds, and the range where it tells something.

frames/s, share: 8 streams with 4 frames under way each, and the share of what the bare server does
    in the same round. Clients, server and worker share the machine's cores, clients and bare server
    as well: with 2 cores for the three of them, this is no measure of the server alone.
CPU: us a frame of the server's own process with gRPC's threads, and of the bare one. It says most
    where the machine has other things to do. Beside it: of worker, planner and the clients.
overhead: at 4 x 25 frames/s, where nothing queues: the median from sending to result, without the
    DNN's 1 ms, less the bare server's in the same round. The way to the worker and back is in it,
    and how late the worker's sleep ends.
first answer: from the process's start until a client that waited for it has its first result.

It wants 2 cores with nothing else to do; they are kept from idle states, where root permits it.

Exit code 1 with --check where a figure misses its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.data_path_clients import Load, Speed, first_answer, full_speed, jpeg, paced
from benchmarks.data_path_servers import Served, bare, real
from experiment.cores import awake

STREAMS, WINDOW = 8, 4
FULL_FPS, FULL_MS = 800.0, [0.2 + 0.04 * b for b in range(1, 9)]  # more than can be reached
CLIENTS, FPS, PACED_MS = 4, 25.0, [0.5 + 0.5 * b for b in range(1, 9)]
OVERHEAD_MS = 0.5  # at most


@dataclass(frozen=True)
class Size:
    """Frames of one size, and the least share of the bare server's frames/s with them."""

    name: str
    px: int
    frame_bytes: int
    least: float


SMALL, LARGE = Size("9 KB", 144, 9_000, 0.65), Size("94 KB", 480, 94_000, 0.55)


@dataclass
class Measured:
    """What the rounds gave: (the server, the bare one) each."""

    speeds: dict[str, list[tuple[Speed, Speed]]]
    paced_ms: list[tuple[float, float]]
    resident_mb: dict[str, float]
    first_s: list[float]

    @property
    def overhead_ms(self) -> float:
        """What the server adds to a paced frame."""
        return median(ours - theirs for ours, theirs in self.paced_ms)

    def shares(self, size: Size) -> list[float]:
        """Return by round the share of the bare server's frames/s."""
        return [ours.fps / theirs.fps for ours, theirs in self.speeds[size.name]]


async def measure(folder: Path, rounds: int, seconds: float) -> Measured:
    """Run all servers, and load one at a time."""
    small = Load(STREAMS, FULL_FPS, SMALL.px, jpeg(SMALL.px, SMALL.frame_bytes), seconds)
    large = replace(small, px=LARGE.px, image=jpeg(LARGE.px, LARGE.frame_bytes))
    steady = replace(small, clients=CLIENTS, fps=FPS)
    found = Measured({SMALL.name: [], LARGE.name: []}, [], {}, [])
    with ExitStack() as stack:
        echo = stack.enter_context(bare(_made(folder / "bare")))
        servers: list[Served] = []
        for number, (size, load, ms) in enumerate(
            [(SMALL, small, FULL_MS), (LARGE, large, FULL_MS), (SMALL, steady, PACED_MS)]
        ):
            job = _made(folder / str(number))
            servers.append(stack.enter_context(real(job, size.px, size.frame_bytes, ms)))
            found.first_s.append(await first_answer(servers[-1], replace(load, clients=1, fps=FPS)))
        for _ in range(rounds):
            for size, load, server in zip((SMALL, LARGE), (small, large), servers, strict=False):
                theirs = await full_speed(echo, load, WINDOW)
                ours = await full_speed(server, load, WINDOW)
                found.speeds[size.name].append((ours, theirs))
            theirs_ms = await paced(echo, steady)
            found.paced_ms.append((await paced(servers[-1], steady), theirs_ms))
        found.resident_mb = servers[0].resident_mb()
    return found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def table(found: Measured) -> str:
    """Return what was found as text."""
    lines = [
        "| frames of | frames/s | bare grpc.aio | share | least and most | floor "
        "| CPU us a frame | bare | beside it | bare |",
        "|" + "---|" * 10,
    ]
    for size in (SMALL, LARGE):
        ours, theirs = zip(*found.speeds[size.name], strict=True)
        shares = found.shares(size)
        lines.append(
            f"| {size.name} | {median(s.fps for s in ours):.0f} "
            f"| {median(s.fps for s in theirs):.0f} | {median(shares):.0%} "
            f"| {min(shares):.0%} to {max(shares):.0%} | {size.least:.0%} "
            f"| {median(s.cpu_us for s in ours):.0f} | {median(s.cpu_us for s in theirs):.0f} "
            f"| {median(s.beside_us for s in ours):.0f} "
            f"| {median(s.beside_us for s in theirs):.0f} |"
        )
    ours_ms, theirs_ms = (median(ms) for ms in zip(*found.paced_ms, strict=True))
    memory = [f"{name} {mb:.0f}" for name, mb in found.resident_mb.items()]
    first_s = found.first_s
    return "\n".join(
        [
            *lines,
            "",
            f"{CLIENTS} clients x {FPS:g} frames/s, a DNN of {PACED_MS[0]:g} ms: "
            f"p50 {ours_ms:.2f} ms without the DNN, bare {theirs_ms:.2f}; "
            f"overhead {found.overhead_ms:.2f} ms, at most {OVERHEAD_MS:g}",
            f"RSS in MB: {', '.join(memory)}; together {sum(found.resident_mb.values()):.0f}",
            f"from start to the first answer: {median(first_s):.2f} s "
            f"({min(first_s):.2f} to {max(first_s):.2f})",
        ]
    )


def misses(found: Measured) -> list[str]:
    """Return what is outside its limit."""
    slow = [size for size in (SMALL, LARGE) if median(found.shares(size)) < size.least]
    told = [f"frames/s at {size.name}: share below {size.least:.0%}" for size in slow]
    if found.overhead_ms > OVERHEAD_MS:
        told.append(f"overhead above {OVERHEAD_MS} ms")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="that each load is measured (3)")
    parser.add_argument("--rounds", type=int, default=5, help="of all loads (5)")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a limit is missed")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder, awake():
        found = asyncio.run(measure(Path(folder), options.rounds, options.seconds))
    print(table(found))
    missed = misses(found) if options.check else []
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
