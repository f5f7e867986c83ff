"""A session in virtual time whose connection is lost: every tick keeps its one row."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest

from client.connection import PAUSE_S, STEADY_S
from client.session import Session, SessionConfig
from client.transport import Received
from experiment.virtual_time import run
from jellyfish.errors import ProtocolError, RejectedError, RunError
from jellyfish.messages import Ack, Answer, Frame, Heartbeat, Registration
from jellyfish.records import FrameRow, Outcome, Reason
from tests.unit.test_session import SIZES, WEIGHTS, Camera, answer


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class FlakyServer:
    """Answers in 20 ms while it is up; keeps answers for who resumes, if it `remembers`."""

    down: list[tuple[float, float]] = field(default_factory=list)  # from, until: resets
    remembers: bool = True
    refuses: list[Exception] = field(default_factory=list)  # the next registrations
    servers: int = 1
    lives_s: float = float("inf")  # each connection
    tries_s: list[float] = field(default_factory=list)
    registered_s: list[float] = field(default_factory=list)
    kept: list[Answer] = field(default_factory=list)
    up: bool = False

    def is_down(self) -> bool:
        return any(begin <= now() < end for begin, end in self.down)

    async def connect(self) -> None:
        self.up = False
        self.tries_s.append(now())
        if self.is_down():
            raise RunError("nobody there")

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        if self.refuses:
            raise self.refuses.pop(0)
        self.registered_s.append(now())
        self._begin([])
        return Registration("token", 320, SIZES, WEIGHTS, 0.5)

    async def resume(self) -> bool:
        if self.remembers:
            self._begin(self.kept)
        return self.remembers

    def _begin(self, kept: list[Answer]) -> None:
        self.inbox: asyncio.Queue[Ack | Answer | Heartbeat | Exception] = asyncio.Queue()
        for one in kept:
            self.inbox.put_nowait(one)
        self.kept, self.up = [], True
        loop = asyncio.get_running_loop()
        ends = [begin for begin, _ in self.down if begin > now()]
        for end_s in [*ends[:1], now() + self.lives_s]:
            if end_s < float("inf"):
                loop.call_at(end_s, self._break, self.inbox)

    def _break(self, inbox: object) -> None:
        if self.inbox is inbox and self.up:
            self.up = False
            self.inbox.put_nowait(RunError("reset"))

    def send(self, frame: Frame) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.005, self._acknowledge, frame)
        loop.call_later(0.02, self._answer, frame)

    def _acknowledge(self, frame: Frame) -> None:
        if self.up:
            self.inbox.put_nowait(Ack(frame.id, 1.0))

    def _answer(self, frame: Frame) -> None:
        if self.up:
            self.inbox.put_nowait(answer(frame))
        else:
            self.kept.append(answer(frame))

    async def receive(self) -> Received:
        event = await self.inbox.get()
        if isinstance(event, Exception):
            raise event
        return Received(event, 100)

    async def close(self) -> None:
        self.up = False


@dataclass
class Story:
    rows: list[FrameRow]
    session: Session
    took_s: float

    def reasons(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in self.rows:
            found.setdefault(row.reason, []).append(row.frame)
        return found


def stream(server: FlakyServer, seed: int = 1, **changes: object) -> Story:
    values = {"client": 0, "name": "c", "fps": 10, "slo_ms": 100, "stream_s": 10, **changes}

    async def main() -> Story:
        config = SessionConfig(silence_s=1e6, **values)  # type: ignore[arg-type]
        session = Session(config, server, Camera(), Random(seed))
        await session.run()
        return Story(session.rows, session, now())

    return run(main())


def test_ticks_without_a_connection_are_rows_and_it_is_back_soon_after() -> None:
    story = stream(FlakyServer(down=[(2.05, 5.05)]))
    assert [row.frame for row in story.rows] == list(range(100))
    away = story.reasons()[Reason.NO_CONNECTION]
    assert away[0] == 21
    assert away == list(range(21, away[-1] + 1))
    assert 50 <= away[-1] <= 50 + 10 * PAUSE_S[1]
    assert {row.outcome for row in story.rows if row.frame in away} == {Outcome.REJECTED}
    assert story.session.counts()["ok"] == 100 - len(away)
    assert (story.session.reconnects, story.session.gone) == (1, "")


def test_what_was_under_way_is_answered_after_resumption() -> None:
    story = stream(FlakyServer(down=[(2.01, 2.02)]))
    assert story.rows[20].outcome is Outcome.OK
    assert 20 < story.rows[20].e2e_ms < 100
    late = stream(FlakyServer(down=[(2.01, 3.01)]))
    assert late.rows[20].outcome is Outcome.LATE
    assert late.rows[20].reason == ""


def test_what_was_under_way_is_lost_where_the_server_has_forgotten() -> None:
    server = FlakyServer(down=[(2.01, 3.01)], remembers=False)
    story = stream(server)
    assert (story.rows[20].outcome, story.rows[20].reason) == (
        Outcome.LOST,
        "connection lost: reset",
    )
    assert len(server.registered_s) == 2
    assert story.session.counts()["lost"] == 1


def test_tries_are_spread_by_the_seed_and_bounded() -> None:
    def gaps(seed: int) -> list[float]:
        server = FlakyServer(down=[(2.05, 9.05)])
        stream(server, seed)
        assert server.tries_s[1] == pytest.approx(2.05)  # at once
        return [after - before for before, after in pairwise(server.tries_s[1:])]

    assert gaps(1) == gaps(1)
    assert gaps(1) != gaps(2)
    assert all(PAUSE_S[0] / 2 <= gap <= PAUSE_S[1] for gap in gaps(1))
    assert len(gaps(1)) < 7 / PAUSE_S[1] * 2 + 3


def test_connections_that_do_not_last_are_not_made_at_once() -> None:
    server = FlakyServer(lives_s=0.01)
    story = stream(server, stream_s=10)
    assert [row.frame for row in story.rows] == list(range(100))
    assert len(server.tries_s) < 10 / PAUSE_S[1] * 2 + 5
    steady = FlakyServer(lives_s=STEADY_S + 0.01)
    assert len(stream(steady, stream_s=16).reasons().get(Reason.NO_CONNECTION, [])) == 0


def test_it_gives_up_when_told_and_has_no_connection_at_the_end_otherwise() -> None:
    gives_up = stream(FlakyServer(down=[(2.05, 99)]), give_up_s=3)
    assert 5.05 <= gives_up.took_s <= 5.05 + PAUSE_S[1]
    assert gives_up.session.gone == "nobody there"
    at_once = stream(FlakyServer(down=[(2.05, 99)]), give_up_s=0)
    assert at_once.took_s == pytest.approx(2.05)
    assert at_once.session.gone == "reset"
    never = stream(FlakyServer(down=[(2.05, 99)]))
    assert [row.frame for row in never.rows] == list(range(100))
    assert never.session.gone == "nobody there"
    assert never.took_s == pytest.approx(9.9, abs=0.01)


@pytest.mark.parametrize("refusal", [RejectedError("full"), RunError("gone"), ProtocolError("?")])
def test_a_refusal_when_it_comes_back_is_tried_again(refusal: Exception) -> None:
    refusals = iter([refusal] * 3)

    class Refusing(FlakyServer):
        async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
            if self.registered_s and (error := next(refusals, None)) is not None:
                raise error
            return await super().register(name, fps, slo_ms)

    story = stream(Refusing(down=[(2.05, 2.06)], remembers=False))
    assert story.session.reconnects == 1
    assert story.rows[-1].outcome is Outcome.OK


def test_the_first_refusal_is_final_unless_there_are_other_servers() -> None:
    with pytest.raises(RejectedError, match="full"):
        stream(FlakyServer(refuses=[RejectedError("full")]))
    full = [RejectedError("full"), RejectedError("full, too")]
    assert stream(FlakyServer(refuses=full[:1], servers=2)).session.counts()["ok"] == 100
    with pytest.raises(RejectedError, match="too"):
        stream(FlakyServer(refuses=full, servers=2))
    with pytest.raises(RunError, match="nobody there"):
        stream(FlakyServer(down=[(0, 99)]))


def test_a_connect_that_hangs_is_tried_again() -> None:
    class Hanging(FlakyServer):
        async def connect(self) -> None:
            await super().connect() if not 2 < now() < 5 else await asyncio.sleep(1e6)

    story = stream(Hanging(down=[(2.05, 2.06)]))
    assert story.session.reconnects == 1
    back = max(story.reasons()[Reason.NO_CONNECTION])
    assert back < 50 + 20
