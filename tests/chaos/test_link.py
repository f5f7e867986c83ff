"""The simulated link: when messages arrive, whatever befalls it."""

from __future__ import annotations

import asyncio

import pytest

from experiment import virtual_time
from experiment.virtual_time import VirtualTimeLoop
from jellyfish.trace import constant
from tests.chaos.link import Direction

SECOND = 125_000  # bytes that 1 Mbit/s carries in a second
DELAY_S = 0.01
X, Y = object(), object()  # owners


def arrivals(*acts: tuple[float, str, object]) -> tuple[list[tuple[str, float]], Direction]:
    """Return what arrives when, where "send" is of (name, owner) and takes a second."""
    arrived: list[tuple[str, float]] = []
    made: list[Direction] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        direction = Direction(loop, constant("link", 1.0), DELAY_S)
        made.append(direction)

        def send(name: str, owner: object) -> None:
            direction.send(SECOND, lambda: arrived.append((name, loop.time())), owner)

        for at_s, act, value in acts:
            await asyncio.sleep(at_s - loop.time())
            if act == "send":
                send(*value)  # type: ignore[misc]
            elif act == "stall":
                loop.stall(value)  # type: ignore[arg-type]
            else:
                getattr(direction, act)(value)
        await asyncio.sleep(100.0)

    virtual_time.run(play(), seed=1)
    return arrived, made[0]


def check(arrived: list[tuple[str, float]], **expected: float) -> None:
    assert [name for name, _ in arrived] == list(expected)
    assert [at_s for _, at_s in arrived] == pytest.approx([s + DELAY_S for s in expected.values()])


def test_messages_follow_each_other() -> None:
    arrived, _ = arrivals((0, "send", ("a", X)), (0.5, "send", ("b", X)), (5, "send", ("c", X)))
    check(arrived, a=1, b=2, c=6)


def test_a_cut_holds_the_rest_of_a_message_and_all_behind_it() -> None:
    arrived, link = arrivals(
        (0, "send", ("a", X)),
        (0.25, "set_share", 0.0),
        (1, "send", ("b", X)),
        (3, "set_share", 1.0),
    )
    check(arrived, a=3.75, b=4.75)
    assert link.delayed == 2


def test_a_share_of_the_rate_takes_longer() -> None:
    arrived, _ = arrivals((0, "set_share", 0.5), (0, "send", ("a", X)), (1, "set_share", 1.0))
    check(arrived, a=1.5)


def test_what_has_left_arrives_in_spite_of_a_cut() -> None:
    arrived, link = arrivals((0, "send", ("a", X)), (1.001, "set_share", 0.0))
    check(arrived, a=1)
    assert link.delayed == link.waiting == 0


def test_a_connection_that_breaks_takes_its_messages_along_and_no_others() -> None:
    arrived, _ = arrivals(
        (0, "send", ("a", X)), (0, "send", ("b", Y)), (0, "send", ("c", X)), (0.5, "drop", Y)
    )
    check(arrived, a=1, c=2)


def test_after_a_stall_messages_are_still_in_order() -> None:
    sent = [(0, "send", (name, X)) for name in "abcdefgh"]
    arrived, _ = arrivals(*sent, (0.5, "stall", 20.0))
    assert "".join(name for name, _ in arrived) == "abcdefgh"
