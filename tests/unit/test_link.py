"""The link in memory when its network misbehaves: cut, one way or both, healed, reset."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client.session import Session, SessionConfig, expected_ticks
from experiment import virtual_time
from experiment.link import Link
from experiment.stored_source import StoredSource
from experiment.virtual_serving import Kept, engine_of, link_of, server_of
from jellyfish.records import Outcome, Reason
from server import seats
from tests.simulated import clip, scene

STREAM_S = 12.0


def played(disturb: Any) -> Session:
    """Return a session of 12 s after `disturb` has had the link 3 s into it."""

    async def main() -> Session:
        one = scene(workers=1)
        engine = engine_of(one, Kept())
        await engine.start()
        link = link_of(one, server_of(one, engine), 0, None, 0.0)
        config = SessionConfig(client=0, name="c", fps=15, slo_ms=200, stream_s=STREAM_S)
        session = Session(config, link, StoredSource("clip", clip()))
        running = asyncio.create_task(session.run())
        await asyncio.sleep(3)
        await disturb(link)
        await running
        await asyncio.sleep(seats.SILENCE_S[0] + 1)
        assert not engine.clients
        await engine.stop(1)
        return session

    session = virtual_time.run(main())
    ticks = expected_ticks(STREAM_S, 15)
    assert [row.frame for row in session.rows] == list(range(ticks))
    return session


async def short(link: Link) -> None:
    link.cut()
    await asyncio.sleep(1)
    link.heal()


async def reset(link: Link) -> None:
    link.reset()


async def deaf(link: Link) -> None:
    link.cut(up=False)
    await asyncio.sleep(4)
    link.heal()


async def mute(link: Link) -> None:
    link.cut(down=False)
    await asyncio.sleep(4)
    link.heal()


async def for_good(link: Link) -> None:
    link.cut()


def test_what_is_under_way_in_a_short_cut_arrives_late() -> None:
    session = played(short)
    assert session.reconnects == 0
    assert session.counts()["late"] > 3
    assert session.counts()["lost"] == 0


@pytest.mark.parametrize(("disturb", "reconnects"), [(reset, 1), (deaf, 1), (mute, 0)])
def test_it_recovers(disturb: Any, reconnects: int) -> None:
    session = played(disturb)
    assert session.reconnects == reconnects  # who is mute hears heartbeats all along
    assert not session.gone
    assert {row.outcome for row in session.rows[-30:]} == {Outcome.OK}


def test_a_cut_for_good_has_no_connection_to_the_end() -> None:
    session = played(for_good)
    assert session.gone == "no server answers within 1 s"
    assert session.rows[-1].reason == Reason.NO_CONNECTION
