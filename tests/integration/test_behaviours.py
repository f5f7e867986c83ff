"""How the system behaves when clients come and go and the network breaks: one body, two worlds.

In virtual time each takes milliseconds; in real time it is marked slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from client.session import Session, expected_ticks
from experiment import virtual_time
from jellyfish.policy import POLICIES
from jellyfish.records import FrameRow, Outcome, Reason
from jellyfish.trace import Trace, constant
from tests.simulated import INPUT_PX, scene
from tests.worlds import World, real_world, virtual_world

WIDE, THIN = constant("wide", 40), constant("thin", 3)


def share_ok(rows: Iterable[FrameRow]) -> float:
    outcomes = [row.outcome for row in rows]
    return outcomes.count(Outcome.OK) / len(outcomes)


def every_frame_was_answered_once(world: World) -> bool:
    """Whether the server's books are even at its end: received are answered, in one way each."""
    clients = world.kept.summary(world.engine)["clients"].values()
    answers = ("ok", "dropped", "rejected", "error", "abandoned")
    return bool(clients) and all(
        0 < client["received"] == sum(client[key] for key in answers) for client in clients
    )


def check_rows(session: Session, stream_s: float, fps: float) -> None:
    ticks = expected_ticks(stream_s, fps)
    assert [row.frame for row in session.rows] == list(range(ticks))
    assert sum(session.counts().values()) == ticks


async def comes_and_goes(world: World) -> None:
    stays = await world.client(0, 15, 200, 4.0, WIDE)
    guest = await world.client(1, 15, 200, 1.0, WIDE)
    async with asyncio.TaskGroup() as group:
        group.create_task(stays.run())
        await asyncio.sleep(1.0)
        await guest.run()
        await asyncio.sleep(0.3)
        assert [client.name for client in world.engine.clients] == ["client-0"]
    check_rows(stays, 4.0, 15)
    check_rows(guest, 1.0, 15)
    assert share_ok(stays.rows) > 0.9
    assert share_ok(guest.rows) > 0.7
    mapped = [len(plan.mapping) for plan in world.kept.plans]
    assert 2 in mapped
    assert mapped[-1] == 1  # the guest's capacity went back
    assert not world.engine.clients


async def vanishes(world: World) -> None:
    stays = await world.client(0, 15, 200, 13.0, WIDE)
    lost = await world.client(1, 15, 200, 13.0, WIDE)
    async with asyncio.TaskGroup() as group:
        group.create_task(stays.run())
        group.create_task(lost.run())
        await asyncio.sleep(1.5)
        await world.vanish(1)
        await asyncio.sleep(10.6)
        assert [client.name for client in world.engine.clients] == ["client-0"]
    assert lost.gone
    fates = {row.outcome for row in lost.rows}  # rejected: too many in flight
    assert {Outcome.OK, Outcome.LOST} <= fates <= {Outcome.OK, Outcome.LOST, Outcome.REJECTED}
    check_rows(stays, 13.0, 15)
    assert share_ok(stays.rows) > 0.9


async def is_cut_off_for_three_seconds(world: World) -> None:
    client = await world.client(0, 15, 200, 12.0, WIDE)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run())
        await asyncio.sleep(3.0)
        (before,) = world.engine.clients
        await world.vanish(0)
        await asyncio.sleep(3.0)
        await world.come_back(0)
        healed_s = asyncio.get_running_loop().time()
        await asyncio.sleep(2.0)
        assert world.engine.clients == [before]  # its seat was kept
    check_rows(client, 12.0, 15)
    assert not client.gone
    assert client.reconnects >= 1
    reasons = {row.reason.partition(":")[0] for row in client.rows if row.outcome is Outcome.LOST}
    assert reasons == {Reason.CONNECTION_LOST}
    assert Reason.NO_CONNECTION in {row.reason for row in client.rows}
    assert share_ok(row for row in client.rows if row.capture_s > healed_s + 2) > 0.9


async def collapses_and_comes_back(world: World) -> None:
    trace = Trace(name="collapse", mbps=(30, 30, 0.5, 0.5, *[30] * 20), step_s=1.0)
    client = await world.client(0, 15, 200, 9.0, trace)
    await client.run()
    check_rows(client, 9.0, 15)
    start_s = client.rows[0].capture_s
    after = [row for row in client.rows if row.capture_s - start_s >= 7]
    before = [row for row in client.rows if 0.5 <= row.capture_s - start_s < 1.5]
    during = [row for row in client.rows if 2 <= row.capture_s - start_s < 6]
    assert share_ok(after) > 0.85
    largest = {name: max(row.px_sent for row in rows) for name, rows in _named(before, after)}
    assert largest["after"] >= largest["before"] - 100  # it is itself again
    assert min(row.px_sent for row in during if row.px_sent > 0) == INPUT_PX[0]
    assert share_ok(during) < 0.9


def _named(before: list[FrameRow], after: list[FrameRow]) -> Iterable[tuple[str, list[FrameRow]]]:
    return (("before", before), ("after", after))


async def swaps_under_load(world: World) -> None:
    clients = [await world.client(i, 15, 200, 5.0, WIDE) for i in range(3)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
            await asyncio.sleep(0.7)
    rows = [row for client in clients for row in client.rows]
    for client in clients:
        check_rows(client, 5.0, 15)
    ran = {row.dnn_px for row in rows if row.dnn_px > 0}
    assert len(ran) >= 2
    assert Outcome.ERROR not in {row.outcome for row in rows}
    assert share_ok(rows) > 0.85


async def is_overloaded(world: World) -> None:
    clients = [await world.client(i, 25, 60, 3.0, WIDE) for i in range(18)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
    for client in clients:
        check_rows(client, 3.0, 25)
    rows = [row for client in clients for row in client.rows]
    assert {row.outcome for row in rows} <= {
        Outcome.OK,
        Outcome.LATE,
        Outcome.DROPPED,
        Outcome.REJECTED,
        Outcome.LOST,
    }
    assert 0 < share_ok(rows) < 0.98


BEHAVIOURS = {
    comes_and_goes: 2,
    vanishes: 2,
    is_cut_off_for_three_seconds: 1,
    collapses_and_comes_back: 2,
    swaps_under_load: 2,
    is_overloaded: 1,
}  # body -> workers
Body = Callable[[World], Awaitable[None]]
each = pytest.mark.parametrize("body", BEHAVIOURS, ids=lambda body: body.__name__)


@each
def test_in_virtual_time(body: Body) -> None:
    async def play() -> World:
        async with virtual_world(scene(workers=BEHAVIOURS[body])) as world:
            await body(world)
        return world

    assert every_frame_was_answered_once(virtual_time.run(play()))


@pytest.mark.slow
@each
async def test_in_real_time(body: Body, tmp_path: Path) -> None:
    async with real_world(scene(workers=BEHAVIOURS[body]), tmp_path) as world:
        await body(world)
    assert every_frame_was_answered_once(world)


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
async def test_every_tick_is_one_row_in_real_time(name: str, tmp_path: Path) -> None:
    async with real_world(scene(policy_name=name), tmp_path) as world:
        clients = [await world.client(i, 15, 150, 2.0, THIN) for i in range(3)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
    for client in clients:
        check_rows(client, 2.0, 15)
    assert every_frame_was_answered_once(world)
