"""What must hold, over what servers and clients wrote and what was seen from outside.

Margins for real time, on two cores that others use as well (a load of 4): shares of frames may fall
by MARGIN beyond the two points that simulation allows, and by FEW frames in any case; what was
measured while this process itself was kept waiting for more than DISTURBED_S, or all others of the
soak for more than STARVED_S by what is none of it, is not judged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jellyfish.files.atomic import read_json
from jellyfish.files.journal import read_lines, write_each
from jellyfish.files.streams import CLIENTS_LINES, FRAMES_LINES, PLANS_LINES, SUMMARY, unmade
from jellyfish.records import Reason
from tests.chaos.faults import Fault
from tests.soak.faults import AFTER_S, CLIENTS, numbers, party
from tests.soak.watching import Probed, Sample, Stalls, starved_s

ALL = range(CLIENTS)
POINTS, MARGIN, FEW = 0.02, 0.05, 3
VISIT_MARGIN = 0.08  # while a hostile client's process takes its share of the cores, too
DISTURBED_S = 0.3
STARVED_S = 1.5  # a second of samples is at the edge
BEFORE_S, WINDOW_S, STEP_S = 5.0, 1.0, 0.25
LIE_S = 3.0  # so long health may say SERVING while no probe is served
LAST_S = 2.0  # frames of the last moments may be under way
KILL_S = 2.0  # of records that a killed server may lose: one, and one for a busy machine
CHILDREN = 3  # two workers and a planner
RESTART_SAMPLES = 5  # a busy machine may have cost a worker that no fault did
SETTLED_S = 15.0  # after a server's start its memory is looked at
GROWTH_MB, GROWTH_SHARE = 24.0, 0.05  # of a process's memory in one life
MORE_FILES, MORE_THREADS, MORE_TASKS = 8, 4, 8
LOG_BYTES_H = 32 << 20
BAD_LINES = ("Traceback", "serving failed", "never retrieved", "was never awaited", "Segmentation")
SHORT_S = 20.0  # fewer seconds of samples say nothing about growth


@dataclass(frozen=True)
class Violation:
    """What did not hold, and when."""

    check: str
    text: str
    time_s: float = float("nan")


@dataclass
class Struck:
    """A fault, when it struck and was over, and what it cost."""

    fault: Fault
    begin_s: float
    end_s: float
    allowed_s: float
    lost: int = 0
    before: float = 1.0
    after: float = 1.0
    recovery_s: float | None = None
    disturbed: bool = False
    violations: list[Violation] = field(default_factory=list)

    @property
    def over_s(self) -> float:
        """When its recovery has been measured."""
        return self.end_s + self.allowed_s + AFTER_S


class Captured(NamedTuple):
    """A frame of an honest client."""

    capture_s: float
    client: int
    ok: bool


class Frames:
    """All frames of honest clients, by the time of their capture."""

    def __init__(self, frames: Sequence[Captured]) -> None:
        self._frames = sorted(frames)
        self._times = [frame.capture_s for frame in self._frames]

    def count(
        self, first_s: float, last_s: float, clients: Collection[int] = ALL
    ) -> tuple[int, int]:
        """Return how many were captured in [first_s, last_s), and how many of them were in time."""
        first, last = bisect_left(self._times, first_s), bisect_left(self._times, last_s)
        some = [f for f in self._frames[first:last] if f.client in clients]
        return len(some), sum(f.ok for f in some)

    def worse(
        self,
        first_s: float,
        last_s: float,
        before: float,
        margin: float = MARGIN,
        clients: Collection[int] = ALL,
    ) -> bool:
        """Return whether fewer were in time than before, by more than may be."""
        total, ok = self.count(first_s, last_s, clients)
        return before * total - ok > max((POINTS + margin) * total, FEW)


def share(counted: tuple[int, int]) -> float:
    """Return the share of frames in time."""
    return counted[1] / counted[0] if counted[0] else 1.0


def read_rows(folder: Path, clients: int) -> list[list[dict[str, Any]]]:
    """Return the rows that each client wrote."""
    return [list(read_lines(folder / FRAMES_LINES.format(n))) for n in range(clients)]


def frames_of(rows: Sequence[Sequence[dict[str, Any]]]) -> Frames:
    """Return the frames of all clients."""
    found = [
        Captured(row["capture_s"], row["client"], row["outcome"] == "ok")
        for client in rows
        for row in client
    ]
    return Frames(found)


# --- faults


def judge(struck: Struck, frames: Frames, stalls: Stalls, samples: Sequence[Sample]) -> None:
    """Fill in what a fault cost and how long it took to be over it."""
    fault, (begin_s, end_s) = struck.fault, (struck.begin_s, struck.end_s)
    hit = numbers(fault) if party(fault) == "link" else ALL
    struck.before = share(frames.count(begin_s - BEFORE_S, begin_s, hit))
    whole = frames.count(begin_s, end_s + struck.allowed_s)
    struck.lost = whole[0] - whole[1]
    first_s = end_s + struck.allowed_s
    struck.after = share(frames.count(first_s, first_s + AFTER_S, hit))
    struck.recovery_s = _recovery_s(struck, frames, hit)
    struck.disturbed = _disturbed(first_s, first_s + AFTER_S, stalls, samples)
    if struck.disturbed:
        return
    if frames.worse(first_s, first_s + AFTER_S, struck.before, clients=hit):
        text = f"{struck.after:.0%} in time afterwards, {struck.before:.0%} before"
        struck.violations.append(Violation("recovery", text, first_s))
    if not _disturbed(begin_s, end_s, stalls, samples):
        struck.violations += _isolation(struck, frames)


def _disturbed(first_s: float, last_s: float, stalls: Stalls, samples: Sequence[Sample]) -> bool:
    """Return whether what was measured then says more about the machine than about the server."""
    return (
        stalls.within(first_s, last_s) > DISTURBED_S
        or starved_s(samples, first_s, last_s) > STARVED_S
    )


def _recovery_s(struck: Struck, frames: Frames, hit: Collection[int]) -> float | None:
    """Return how long after its end frames were in time again, for two windows in a row."""
    for step in range(int((struck.allowed_s + AFTER_S - 2 * WINDOW_S) / STEP_S) + 1):
        first_s = struck.end_s + step * STEP_S
        begins = (first_s, first_s + WINDOW_S)
        if not any(frames.worse(b, b + WINDOW_S, struck.before, clients=hit) for b in begins):
            return step * STEP_S
    return None


def _isolation(struck: Struck, frames: Frames) -> Iterator[Violation]:
    """Hostile clients cost the honest ones little, and the link of one costs the others nothing."""
    kind = party(struck.fault)
    if kind not in ("client", "link"):
        return
    others = ALL if kind == "client" else [n for n in ALL if n not in numbers(struck.fault)]
    before = share(frames.count(struck.begin_s - BEFORE_S, struck.begin_s, others))
    if frames.worse(struck.begin_s, struck.end_s, before, VISIT_MARGIN, others):
        during = share(frames.count(struck.begin_s, struck.end_s, others))
        text = f"others: {during:.0%} in time meanwhile, {before:.0%} before"
        yield Violation("isolation", text, struck.begin_s)


# --- what was written


def ticks(rows: Sequence[dict[str, Any]], client: int, end_s: float) -> Iterator[Violation]:
    """One row a tick, of the right time, up to the end."""
    numbers = sorted(row["frame"] for row in rows)
    for one, next_one in pairwise(numbers):
        if next_one != one + 1:
            what = "twice" if next_one == one else f"followed by {next_one}"
            yield Violation("ticks", f"client {client}: tick {one} {what}")
            return
    if not rows:
        yield Violation("ticks", f"client {client}: no rows")
        return
    ordered = sorted(rows, key=lambda row: int(row["frame"]))
    first, fps = ordered[0], ordered[0]["fps"]
    for row in ordered:
        due_s = first["capture_s"] + (row["frame"] - first["frame"]) / fps
        if abs(row["capture_s"] - due_s) > 1e-6:
            yield Violation("ticks", f"client {client}: tick {row['frame']} at another time")
            return
    missing = (end_s - ordered[-1]["capture_s"]) * fps
    if first["frame"] != 0 or missing > LAST_S * fps:
        yield Violation("ticks", f"client {client}: rows of ticks {numbers[0]} to {numbers[-1]}")


def answers(
    rows: Sequence[dict[str, Any]], summary: dict[str, Any], client: int, end_s: float
) -> Iterator[Violation]:
    """One answer a frame: none twice, none unasked for, none missing on a connection that lives."""
    for key in ("twice", "unasked"):
        if summary[key]:
            yield Violation("answers", f"client {client}: {summary[key]} answers {key}")
    if summary["failed"]:
        yield Violation("answers", f"client {client}: {summary['failed']}")
    for row in rows:
        late = row["capture_s"] > end_s - LAST_S
        if row["reason"] == Reason.NO_ANSWER and not late:
            text = f"client {client}: frame {row['frame']} has no answer"
            yield Violation("answers", text, row["capture_s"])


def collect(folder: Path) -> dict[str, Any]:
    """Return what a server wrote at its end; a killed one's is made of what it streamed."""
    write_each(unmade(folder))
    value: dict[str, Any] = read_json(folder / SUMMARY)
    return value


def half_lines(folder: Path) -> Iterator[Violation]:
    """Records are whole lines, but for the last one of a server that was killed."""
    for name in (CLIENTS_LINES, PLANS_LINES):
        path = folder / name
        if not path.exists():
            continue
        lines = path.read_bytes().count(b"\n")
        torn = lines - sum(1 for _ in read_lines(path))
        if torn:
            yield Violation("records", f"{folder.name}: {torn} damaged lines in {name}")


def books(summary: dict[str, Any], where: str, killed: bool) -> Iterator[Violation]:
    """Received = ok + dropped + rejected + error + abandoned (+ waiting, where it was killed)."""
    for name, counts in summary["clients"].items():
        ends = ("ok", "dropped", "rejected", "error", "abandoned")
        open_frames = counts["received"] - sum(counts[end] for end in ends)
        if open_frames < 0 or (open_frames and not killed):
            text = f"{where}: {name!r} received {counts['received']}, open {open_frames}"
            yield Violation("books", text)


def agreement(
    rows: Sequence[dict[str, Any]],
    summaries: Sequence[tuple[dict[str, Any], bool]],
    client: int,
    fps: float,
) -> Iterator[Violation]:
    """Servers know of every answer that a client got; killed ones lose a moment."""
    got = sum(row["outcome"] in ("ok", "late") for row in rows)
    told = sum(
        counts["ok"]
        for summary, _ in summaries
        for name, counts in summary["clients"].items()
        if name.partition("#")[0] == f"client-{client}"
    )
    slack = KILL_S * fps * sum(killed for _, killed in summaries)
    if got > told + slack:
        yield Violation("books", f"client {client} got {got} answers, servers wrote down {told}")


def bad_lines(log: Path) -> Iterator[Violation]:
    """Nothing in a log tells of an error that nobody expected."""
    for line in log.read_text(errors="replace").splitlines():
        if any(bad in line for bad in BAD_LINES):
            yield Violation("log", f"{log.parent.name}/{log.name}: {line[:200]}")


# --- what was seen


def health(seen: Sequence[Probed]) -> Iterator[Violation]:
    """SERVING means that a probe frame is served."""
    since_s: float | None = None
    for probed in seen:
        if not probed.serving or probed.served:
            since_s = None
            continue
        since_s = probed.time_s if since_s is None else since_s
        if probed.time_s - since_s >= LIE_S:
            text = f"SERVING for {LIE_S:g} s, and no probe is served: {probed.why}"
            yield Violation("health", text, probed.time_s)
            since_s = None


def quiet(samples: Sequence[Sample], struck: Sequence[Struck]) -> list[Sample]:
    """Return the samples that no fault or recovery touches."""
    spans = [(s.begin_s, s.end_s + s.allowed_s) for s in struck]
    return [s for s in samples if not any(a <= s.time_s < b for a, b in spans)]


def growth(samples: Sequence[Sample], ready_s: dict[int, float]) -> Iterator[Violation]:
    """Memory, files and threads stay as they are; `samples` are quiet ones."""
    for life, from_s in ready_s.items():
        some = [s for s in samples if s.life == life and s.time_s - from_s > SETTLED_S]
        yield from _children(some, life)
        yield from _grows(some, "server_mb", f"server {life}", "MB", GROWTH_MB)
        yield from _grows(some, "files", f"server {life}", "open files", MORE_FILES)
        yield from _grows(some, "threads", f"server {life}", "threads", MORE_THREADS)
        yield from _grows(some, "tasks", f"server {life}", "tasks", MORE_TASKS)
    if samples:
        warm = [s for s in samples if s.time_s - samples[0].time_s > SETTLED_S]
        yield from _grows(warm, "load_mb", "the clients", "MB", GROWTH_MB)
        yield from _grows(warm, "load_files", "the clients", "open files", MORE_FILES)
        yield from _grows(warm, "load_threads", "the clients", "threads", MORE_THREADS)
        yield from _grows(warm, "load_tasks", "the clients", "tasks", MORE_TASKS)


def _children(samples: Sequence[Sample], life: int) -> Iterator[Violation]:
    """A child more is too much; one less is too much where no other takes its place in time."""
    missing = 0
    for sample in samples:
        missing = missing + 1 if sample.children < CHILDREN else 0
        if sample.children > CHILDREN or missing >= RESTART_SAMPLES:
            text = f"server {life} has {sample.children} children, not {CHILDREN}"
            yield Violation("processes", text, sample.time_s)
            return


def _grows(
    samples: Sequence[Sample], what: str, who: str, unit: str, most: float
) -> Iterator[Violation]:
    """Compare the last third with the first one: their medians."""
    if not samples or samples[-1].time_s - samples[0].time_s < SHORT_S:
        return
    values = [float(getattr(sample, what)) for sample in samples]
    third = max(1, len(values) // 3)
    first, last = sorted(values[:third])[third // 2], sorted(values[-third:])[third // 2]
    if last - first > max(most, GROWTH_SHARE * first):
        text = f"{who}: {first:.0f} {unit} at first, {last:.0f} at last"
        yield Violation("growth", text, samples[-1].time_s)


def log_rate(samples: Sequence[Sample]) -> Iterator[Violation]:
    """Logs have a bound in bytes an hour."""
    if len(samples) < 2 or samples[-1].time_s - samples[0].time_s < SHORT_S:
        return
    first, last = samples[0], samples[-1]
    hourly = (last.log_bytes - first.log_bytes) / (last.time_s - first.time_s) * 3600
    if hourly > LOG_BYTES_H:
        yield Violation("log", f"{hourly / 2**20:.0f} MB of log an hour")
