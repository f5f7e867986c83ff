"""What must hold, whatever strikes. Each check returns violations: texts, the name first."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from math import inf

from client.session import expected_ticks
from jellyfish.records import Outcome
from server.seats import RESUME_S, SILENCE_S
from tests.chaos.channel import Call
from tests.chaos.spies import Seen
from tests.chaos.world import START_TIMEOUT_S, Serving, World

GRAIN_S = 0.3  # a worker's death is seen so much later at most
RECOVERED_S = 2.0 + 2.0 + 0.8  # after healing: 2 s, a probe interval, a worker's start
REVIVED_S = 2.0 + 0.5  # the longest pause between two tries, and the death is seen
PLANNED_S = 2.0  # several intervals
SETTLED_S = 3.0  # after the start, a fresh engine serves everybody that it can
LINES_A_SECOND = 20.0  # in the server's log, on average: some a client that comes or goes
DROPPED = "were dropped: nobody read them"
DARK_S = 5.0  # no server says SERVING for so long while nobody is served


def left_over(world: World) -> list[str]:
    """Return what is still there after the end: tasks and child processes."""
    me = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not me]
    names = sorted(f"task {t.get_name()} {t.get_coro().__qualname__}" for t in tasks)  # type: ignore[union-attr]
    names = [name for name in names if "keep" not in name]
    return names + [f"process {p.slot.name} {p.pid}" for p in world.host.alive]


def idle(world: World) -> list[str]:
    """Nothing is left at the end."""
    return [f"idle: {name} is left" for name in world.left]


def unhandled(world: World) -> list[str]:
    """No exception goes unhandled, and every server starts."""
    return [f"handled: {problem}" for problem in world.problems]


def books(world: World) -> list[str]:
    """What was received was answered, client by client, and nobody is forgotten."""
    found = []
    for serving in world.servings:
        if serving.killed:
            continue
        for counts in serving.books:
            told = sum(n for key, n in counts.items() if key not in ("name", "client", "received"))
            if counts["received"] != told:
                found.append(f"books: {counts}")
        open_ = len(serving.spy.seen) - len(serving.books)
        if open_:
            found.append(f"books: those of {open_} clients are not closed")
    return found


def one_answer(world: World) -> list[str]:
    """Each frame that an engine took gets one answer, unless its client has left before."""
    found = []
    for serving in world.servings:
        for seen in serving.spy.seen:
            odd = [
                frame
                for frame, asked in seen.asked.items()
                if len(seen.told[frame]) != len(asked)
                and not (seen.left_s < inf and len(seen.told[frame]) < len(asked))
            ]
            if odd and not serving.killed:
                found.append(f"one answer: {seen.name}: not for frames {odd[:5]} ({len(odd)})")
    return found


def one_message(world: World) -> list[str]:
    """What goes out to a client is one answer a frame; all of them where its stream ends well.

    A stream that takes over tells once more what may not have got through before.
    """
    found = []
    for serving in world.servings:
        asked: defaultdict[str, Counter[int]] = defaultdict(Counter)
        told: defaultdict[str, Counter[int]] = defaultdict(Counter)
        last: dict[str, Call] = {}
        for call in serving.listener.streams:
            if call.context is not None:
                asked[who(call)].update(frame for frame, _, _ in call.context.read_at)
                answers = {m[1] for m in call.context.written if m[0] == "result"}
                told[who(call)].update(answers)
                again = (
                    Counter(m[1] for m in call.context.written if m[0] == "result")
                    - asked[who(call)]
                )
                last[who(call)] = call
                if again:
                    found.append(f"one message: {who(call)} got {dict(again)} more")
        for name, call in last.items():
            missing = asked[name] - told[name]
            if missing and len(missing) == missing.total() and stayed(serving, call):
                found.append(f"one message: {name}: none for {sorted(missing)[:5]}")
    return found


def run_timeout_s(world: World) -> float:
    """Return the longest that a batch may take: as is promised, whatever the server's settings."""
    batch_s = max(0.5, 5 * float(world.profile.latency_ms.max()) / 1000)
    return batch_s + world.profile.max_batch * world.limits.frame_bytes / 10e6


def promptly(world: World) -> list[str]:
    """An answer comes within the SLO and one time-out, the server's own stalls left out."""
    found = []
    timeout_s = run_timeout_s(world) + GRAIN_S
    for serving in world.servings:
        for seen in serving.spy.seen:
            limit_s = seen.slo_ms / 1000 + timeout_s + stalled_s(world)
            took = [
                told[0] - asked[0]
                for frame in seen.asked
                for asked, told in zip(seen.asked[frame], seen.told[frame], strict=False)
            ]
            late = [s for s in took if s > limit_s]
            if late:
                found.append(
                    f"promptly: {seen.name}: {len(late)} frames over {limit_s:.2f} s, "
                    f"up to {max(late):.2f} s"
                )
    return found


def plans(world: World) -> list[str]:
    """Every adopted plan keeps the rules of its problem."""
    return [f"plans: {wrong}" for serving in world.servings for wrong in serving.spy.bad_plans[:1]]


def last_healed_s(world: World) -> float | None:
    """Return when the last fault that touched anything was over; None where none did."""
    return max((s.healed_s for s in world.struck if s.hits or s.provoked), default=None)


def planned(world: World) -> list[str]:
    """Some time after the last fault is over, plans come at their interval again."""
    serving, end_s = world.serving, world.scenario.length_s - 0.5  # some client still streams
    begin_s = max(last_healed_s(world) or 0.0, serving.ready_s) + RECOVERED_S
    if begin_s < end_s - PLANNED_S and serving.spy.planned_s < end_s - PLANNED_S:
        return [f"planned: no plan since {serving.spy.planned_s:.2f} s"]
    return []


def rows(world: World) -> list[str]:
    """Each client has one row per tick."""
    found = []
    for i, streamed in enumerate(world.streamed):
        client = world.scenario.clients[i]
        want = expected_ticks(world.scenario.length_s - client.start_s, client.fps)
        ticks = [row.frame for row in streamed.rows]
        if ticks != list(range(want)):
            why = streamed.error or streamed.gone
            found.append(f"rows: client {i}: {len(ticks)} of {want} ticks; {why}")
    return found


def held(world: World) -> list[str]:
    """The frames that the server holds are bounded."""
    most = max(serving.spy.most_held for serving in world.servings)
    limit = world.limits.total_bytes + world.limits.frame_bytes  # the one that is being refused
    found = [f"held: {most / 1e6:.1f} MB of frames > {limit / 1e6:.1f}"] if most > limit else []
    one = max(serving.spy.most_of_one for serving in world.servings)
    limit = world.limits.client_bytes + world.limits.frame_bytes
    return found + ([f"held: {one / 1e6:.1f} MB of one client"] if one > limit else [])


def records(world: World) -> list[str]:
    """What a process recorded is on the disk but for the last second, whatever becomes of it.

    A disk that is full or stalls excuses what is not there yet, of the files that it concerns.
    """
    found = [problem for serving in world.servings for problem in serving.records.writer.problems]
    return [f"records: {problem}" for problem in [*found, *world.record_problems]]


def log(world: World) -> list[str]:
    """Every line is written, in order, or counted as dropped; nobody waits for who reads; few."""
    said, lines, dropped = iter(world.log.said), 0, 0
    for line in world.log.written:
        if line.endswith(DROPPED):
            dropped += int(line.split()[0])
        elif line in said:  # and passes over those before it
            lines += 1
        else:
            return [f"log: out of order, or never said: {line:.100}"]
    found = []
    if lines + dropped != len(world.log.said):
        found.append(f"log: {lines} of {len(world.log.said)} lines, and {dropped} told as dropped")
    if world.log.held_up_s:
        found.append(f"log: the server stood still for {world.log.held_up_s:.2f} s to write a line")
    most = LINES_A_SECOND * (world.scenario.length_s + SETTLED_S)
    if len(world.log.said) > most:
        found.append(f"log: {len(world.log.said)} lines > {most:.0f}")
    return found


def clock(world: World) -> list[str]:
    """Nothing but the log's time stamps depends on the wall clock."""
    return [f"clock: {reader} reads the wall clock" for reader in sorted(world.clock_readers)]


def health(world: World) -> list[str]:
    """While a server says SERVING, it serves."""
    found = []
    for serving in world.servings:
        for begin_s, end_s in claimed(world, serving):
            dark_s = _dark(world, begin_s, end_s)
            if dark_s is not None:
                found.append(f"health: SERVING, and nobody is served from {dark_s:.2f} s on")
                break
    return found


def claimed(world: World, serving: Serving) -> Iterator[tuple[float, float]]:
    """Yield from when until when a server said that it was serving."""
    changes = [*serving.health, (min(serving.ended_s, serving.stopping_s), False)]
    since_s = None
    for at_s, healthy in changes:
        if healthy and since_s is None:
            since_s = at_s
        elif not healthy and since_s is not None:
            yield max(since_s, 2.0), min(at_s, world.scenario.length_s - 1.0)
            since_s = None


def _dark(world: World, begin_s: float, end_s: float) -> float | None:
    """Return since when nobody was served for DARK_S, if so.

    Links that are down excuse it, and strangers who were admitted, as many as take all there is.
    """
    hurt = [
        (struck.struck_s, struck.healed_s + RESUME_S)
        for struck in world.struck
        if struck.fault.kind.startswith("link") or struck.fault.kind == "client comes and goes"
    ]
    good = sorted(
        row.received_s
        for streamed in world.streamed
        for row in streamed.rows
        if row.outcome in (Outcome.OK, Outcome.LATE)
    )
    last_s = begin_s
    for at_s in [*(t for t in good if begin_s <= t <= end_s), end_s]:
        if at_s - last_s > DARK_S and not any(a < at_s and last_s < b + 2.5 for a, b in hurt):
            return last_s
        last_s = at_s
    return None


def streams(world: World) -> Iterator[tuple[Serving, Call]]:
    for serving in world.servings:
        for call in serving.listener.streams:
            if call.context is not None:
                yield serving, call


def who(call: Call) -> str:
    assert call.connection is not None
    return call.connection.target


def stayed(serving: Serving, call: Call) -> bool:
    """Whether a stream was up until it was drained: the client left it in order, or was sent away.

    Whoever is cut off, evicted or stopped short gets no answers any more.
    """
    status = call.status
    return status is not None and status[0].name == "OK" and not serving.killed


def seats(world: World) -> list[str]:
    """A client of ours whose connection broke finds its seat again, if it is back in time."""
    found = []
    for serving in world.servings:
        last: dict[str, Seen] = {}
        for seen in serving.spy.seen:
            before, last[seen.name] = last.get(seen.name), seen
            if before is None or not seen.name.startswith("client-") or before.put_out:
                continue
            away_s = seen.joined_s - max(before.joined_s, before.heard_s)
            if away_s < RESUME_S and not world.stalls:
                found.append(f"seats: {seen.name} lost its seat in {away_s:.2f} s")
    return found


def ghosts(world: World) -> list[str]:
    """Whoever is silent for long has no seat, and soon no capacity; the gone have neither."""
    found = []
    for serving in world.servings:
        found += [f"ghosts: {text}" for text in serving.spy.gone_work[:1]]
        found += [f"ghosts: {text}" for text in serving.spy.ghosts[:1] if not world.stalls]
        for seen in serving.spy.seen:
            times = [at_s for asked in seen.asked.values() for at_s, _ in asked]
            heard_s = max(times, default=seen.joined_s)
            silent_s = min(seen.left_s, serving.ended_s) - heard_s
            limit_s = max(SILENCE_S[0], 3 / seen.fps) + RESUME_S + stalled_s(world) + 1.0
            if silent_s > limit_s:
                found.append(f"ghosts: {seen.name} has a seat, silent for {silent_s:.1f} s")
    return found


def alarms(world: World) -> list[str]:
    """Nothing is done to a worker or a client that nothing is wrong with."""
    found = []
    for name in world.untouched:
        more = len(world.host.slot(name).lives) - len(world.servings)
        if more > 0:
            found.append(f"alarms: {name} was started {more} times more than the server")
    if len(world.untouched) < world.scenario.gpus:  # who is alone when a worker is killed, twice...
        return found
    for serving in world.servings:
        for seen in serving.spy.seen:
            if seen.put_out and seen.name.startswith("client-"):
                found.append(f"alarms: {seen.name} was put out: {seen.put_out}")
    return found


def errors(world: World) -> list[str]:
    """No frame of whoever behaves ends with an error where nothing is wrong with any GPU."""
    if len(world.untouched) < world.scenario.gpus or len(world.servings) > 1:
        return []
    found = []
    for i, streamed in enumerate(world.streamed):
        failed = [row.reason for row in streamed.rows if row.outcome is Outcome.ERROR]
        if failed:
            found.append(f"errors: client {i}: {len(failed)} frames: {failed[0]}")
    return found


def hung(world: World) -> list[str]:
    """A process that hangs for good is ended in time, and an idle one too: it is pinged."""
    found = []
    for slot in world.host.slots.values():
        for life in slot.lives:
            hung_s = life.ended_s - life.hung_s
            if hung_s > _hang_limit_s(world, life.hangs_at) + stalled_s(world) + GRAIN_S:
                found.append(f"hung: {slot.name} at {life.hangs_at}: for {hung_s:.2f} s")
    return found


def _hang_limit_s(world: World, doing: str) -> float:
    if doing == "plan":
        return 1.0
    run_s = run_timeout_s(world)  # also of a batch that comes to an idle worker
    return run_s if doing in ("run", "running") else max(START_TIMEOUT_S, run_s)


def revived(world: World) -> list[str]:
    """A worker whose process has ended has another soon, again and again."""
    found = []
    for serving in world.servings:
        up_s = min(serving.ended_s, serving.stopping_s)
        for name, slot in world.host.slots.items():
            mine = [x for x in slot.lives if serving.started_s <= x.born_s < serving.ended_s]
            births = [life.born_s for life in mine[1:]] + [up_s]
            for life, next_s in zip(mine, births, strict=True):
                gap_s = next_s - life.ended_s
                if name != "planner" and gap_s > REVIVED_S + stalled_s(world) and up_s < inf:
                    found.append(f"revived: {name} was away for {gap_s:.2f} s")
    return found


def stalled_s(world: World) -> float:
    """Return for how long the server's loop stood still in all."""
    return sum(end - begin for begin, end in world.stalls)


CHECKS: tuple[Callable[[World], list[str]], ...] = (
    unhandled,
    idle,
    books,
    one_answer,
    one_message,
    promptly,
    plans,
    planned,
    rows,
    held,
    records,
    log,
    clock,
    health,
    seats,
    ghosts,
    alarms,
    errors,
    hung,
    revived,
)
