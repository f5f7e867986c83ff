"""The session in virtual time: every tick has one row, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.session import Session, SessionConfig, expected_ticks
from client.source import SourceFrame
from client.transport import Received
from experiment.virtual_time import run
from jellyfish.errors import DataError, ProtocolError, RejectedError, RunError
from jellyfish.messages import Ack, Answer, Event, Frame, Heartbeat, Registration
from jellyfish.policy import JELLYFISH
from jellyfish.records import FrameRow, Outcome, Reason, Stages
from tests.boxes import ONE_BOX

SIZES, WEIGHTS = (128, 320, 608), (3_000.0, 15_000.0, 50_000.0)
Script = Callable[[Frame], list[tuple[float, Event | Exception]]]
"""frame -> what comes back, each so many seconds later."""


def answer(
    frame: Frame, outcome: Outcome = Outcome.OK, reason: str = "", next_px: int = 320
) -> Answer:
    stages = Stages(dispatch_ms=1, decode_ms=2, wait_ms=3, execute_ms=4)
    return Answer(frame.id, outcome, reason, next_px, frame.px, 0, 2, 9.5, stages, ONE_BOX)


def prompt(delay_s: float = 0.02, **told: object) -> Script:
    """Acknowledge after 5 ms, answer after `delay_s`."""
    return lambda frame: [
        (0.005, Ack(frame.id, 1.0)),
        (delay_s, answer(frame, **told)),  # type: ignore[arg-type]
    ]


@dataclass
class ScriptedServer:
    """A transport whose other end follows a script, and says a heartbeat every half second."""

    script: Script
    heartbeats_until_s: float = float("inf")
    refuse: Exception | None = None
    sent: list[Frame] = field(default_factory=list)
    closed: bool = False
    servers: int = 1

    async def connect(self) -> None:
        self.inbox: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.heart = asyncio.create_task(self.beat())

    async def beat(self) -> None:
        while asyncio.get_running_loop().time() < self.heartbeats_until_s:
            self.inbox.put_nowait(Heartbeat())
            await asyncio.sleep(0.5)

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        if self.refuse is not None:
            raise self.refuse
        return Registration("token", 320, SIZES, WEIGHTS, 0.5)

    async def resume(self) -> bool:
        return False

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)
        for delay_s, event in self.script(frame):
            asyncio.get_running_loop().call_later(delay_s, self.inbox.put_nowait, event)

    async def receive(self) -> Received:
        event = await self.inbox.get()
        if isinstance(event, Exception):
            raise event
        return Received(event, 100)

    async def close(self) -> None:
        self.closed = True
        self.heart.cancel()


@dataclass
class Camera:
    """Ten frames, looped; blind at the ticks named, broken from one on."""

    blind: frozenset[int] = frozenset()
    broken_from: int = 10**9

    def start(self) -> None: ...

    def close(self) -> None: ...

    def clip_frame(self, k: int) -> int:
        return k % 10

    def frame(self, k: int, px: int) -> SourceFrame | None:
        if k >= self.broken_from:
            raise DataError("the lens fell off")
        if k in self.blind:
            return None
        return SourceFrame(f"clip:{k % 10}".encode(), bytes(px), k % 10)


def config(**changes: object) -> SessionConfig:
    values: dict[str, object] = {"client": 3, "name": "c", "fps": 10, "slo_ms": 100, "stream_s": 2}
    values["give_up_s"] = 0  # unless a test wants it to come back
    return SessionConfig(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Story:
    """A session that has run, and how long it took."""

    session: Session
    took_s: float

    @property
    def rows(self) -> list[FrameRow]:
        return self.session.rows


def stream(server: ScriptedServer, camera: Camera | None = None, **changes: object) -> Story:
    async def main() -> Story:
        session = Session(config(**changes), server, camera or Camera())
        await session.run()
        return Story(session, asyncio.get_running_loop().time())

    return run(main())


def test_every_tick_is_a_row_on_time() -> None:
    server = ScriptedServer(prompt())
    story = stream(server)
    assert [row.frame for row in story.rows] == list(range(20))
    assert [row.capture_s for row in story.rows] == pytest.approx([k / 10 for k in range(20)])
    assert [row.clip_frame for row in story.rows] == [k % 10 for k in range(20)]
    assert story.session.counts() == {
        **dict.fromkeys(["late", "dropped", "rejected", "lost", "error"], 0),
        "ok": 20,
    }
    assert story.took_s == pytest.approx(1.92)  # it ends with the last answer
    assert server.closed


def test_a_row_tells_all_that_happened() -> None:
    server = ScriptedServer(prompt(next_px=608))
    story = stream(server, policy=replace(JELLYFISH, backoff="none"))
    row = story.rows[1]
    assert (row.client, row.fps, row.slo_ms) == (3, 10, 100)
    assert (row.px_sent, row.dnn_px, row.gpu, row.batch) == (608, 608, 0, 2)  # as told
    assert (row.bytes_up, row.bytes_down, row.server_ms) == (608, 100, 9.5)
    assert (row.dispatch_ms, row.decode_ms, row.wait_ms, row.execute_ms) == (1, 2, 3, 4)
    assert row.sent_s == pytest.approx(0.1)
    assert row.acked_s == pytest.approx(0.105)
    assert row.e2e_ms == pytest.approx(20)
    assert row.send_ms == pytest.approx(20)
    assert story.session.detections.keys() == set(range(20))
    assert server.sent[1].tag == b"clip:1"
    # The estimate: 320, then 608 bytes in 4 ms of network time, less 0.9 x 0.5 ms of wire each
    # way; a rise is believed by half.
    assert story.rows[2].bandwidth_est_kbps == pytest.approx((320 + 608) / 2 * 8 / 3.1)
    assert server.sent[2].bandwidth_kbps == story.rows[2].bandwidth_est_kbps


def test_the_client_steps_down_on_its_own_estimate() -> None:
    # 128 bytes in 4 ms seem 0.3 Mbit/s, which carries no 3 kB at 100 fps: always the smallest.
    story = stream(ScriptedServer(prompt(next_px=608)), fps=100, stream_s=1)
    assert story.rows[0].px_sent == 320  # before any acknowledgement: as told
    assert {row.px_sent for row in story.rows[1:]} == {128}


def test_late_answers_are_late_and_kept() -> None:
    story = stream(ScriptedServer(prompt(0.1001)))
    assert {row.outcome for row in story.rows} == {Outcome.LATE}
    assert len(story.session.detections) == 20


@pytest.mark.parametrize("outcome", [Outcome.DROPPED, Outcome.ERROR, Outcome.REJECTED])
def test_the_server_s_verdict_and_reason_are_kept(outcome: Outcome) -> None:
    story = stream(ScriptedServer(prompt(outcome=outcome, reason="why")))
    assert {(row.outcome, row.reason) for row in story.rows} == {(outcome, "why")}
    assert not story.session.detections


def test_too_many_in_flight_are_rejected_by_the_client() -> None:
    story = stream(ScriptedServer(prompt(1.05)), in_flight_limit=4, stream_s=1)
    assert [row.outcome for row in story.rows] == [Outcome.LATE] * 4 + [Outcome.REJECTED] * 6
    assert {row.reason for row in story.rows[4:]} == {"in-flight limit"}
    assert all(isnan(row.sent_s) and row.bytes_up == 0 for row in story.rows[4:])


def test_a_slow_source_is_a_row() -> None:
    story = stream(ScriptedServer(prompt()), Camera(blind=frozenset({4, 7})))
    assert [row.frame for row in story.rows if row.outcome is Outcome.REJECTED] == [4, 7]
    assert {row.reason for row in story.rows if row.outcome is Outcome.REJECTED} == {
        "source too slow"
    }


def test_what_is_never_answered_is_lost_within_bounds() -> None:
    story = stream(ScriptedServer(lambda frame: []))
    assert {(row.outcome, row.reason) for row in story.rows} == {(Outcome.LOST, "no answer")}
    assert story.took_s == pytest.approx(1.9 + 1.0)
    slow = stream(ScriptedServer(lambda frame: []), slo_ms=2000)
    assert slow.took_s == pytest.approx(1.9 + 4.0)


def test_a_silent_server_is_gone_within_three_seconds() -> None:
    server = ScriptedServer(
        lambda frame: prompt()(frame) if frame.id < 5 else [], heartbeats_until_s=0.6
    )
    story = stream(server, stream_s=60, in_flight_limit=1000)
    assert story.took_s <= 0.5 + 3
    assert "silent" in story.session.gone
    lost = [row for row in story.rows if row.outcome is Outcome.LOST]
    assert lost[0].frame == 5
    assert all(row.reason.startswith("connection lost: ") for row in lost)
    skipped = [row for row in story.rows if row.outcome is Outcome.REJECTED]
    assert skipped.pop().reason == Reason.NO_CONNECTION
    assert {row.reason for row in skipped} == {Reason.NO_TIME}  # nothing comes of what was sent
    assert sorted(row.frame for row in (*lost, *skipped)) == list(range(5, len(story.rows) - 1))
    gaps = [after.capture_s - before.capture_s for before, after in pairwise(lost)]
    assert gaps == pytest.approx([0.5] * len(gaps))  # but now and then it is tried


def test_a_client_that_skips_frames_tries_again_when_one_was_lost() -> None:
    lost = 10
    server = ScriptedServer(lambda frame: [] if frame.id == lost else prompt()(frame))
    story = stream(server, stream_s=4)
    outcomes = [row.outcome for row in story.rows]
    assert outcomes[lost] is Outcome.LOST
    assert set(outcomes[lost + 1 : lost + 6]) == {Outcome.REJECTED, Outcome.OK}
    assert set(outcomes[lost + 6 :]) == {Outcome.OK}


@pytest.mark.parametrize("failure", [RunError("broke"), ProtocolError("gibberish")])
def test_a_broken_stream_ends_at_once(failure: Exception) -> None:
    server = ScriptedServer(lambda frame: [(0.01, failure)] if frame.id == 7 else prompt()(frame))
    story = stream(server)
    assert story.took_s == pytest.approx(0.71)
    assert [row.outcome for row in story.rows] == [Outcome.OK] * 7 + [Outcome.LOST]
    assert story.session.gone == str(failure)
    assert server.closed


def test_strange_events_change_nothing() -> None:
    def script(frame: Frame) -> list[tuple[float, Event | Exception]]:
        twice = prompt()(frame) * 2
        return [*twice, (0.001, Ack(10**6, 1.0)), (0.001, Answer(10**6, Outcome.OK, "", 128))]

    story = stream(ScriptedServer(script))
    assert story.session.counts()["ok"] == len(story.rows) == 20
    assert {row.px_sent for row in story.rows[1:]} == {128}  # 320 B in 4 ms carry no 320 px


def test_a_refusal_is_raised_and_the_transport_closed() -> None:
    server = ScriptedServer(prompt(), refuse=RejectedError("full"))
    with pytest.raises(RejectedError, match="full"):
        stream(server)
    assert server.closed


def test_a_broken_source_is_raised() -> None:
    with pytest.raises(DataError, match="lens"):
        stream(ScriptedServer(prompt()), Camera(broken_from=3))


def test_stop_ends_at_once_and_settles() -> None:
    async def main() -> Story:
        session = Session(config(stream_s=60), ScriptedServer(prompt(0.5)), Camera())
        asyncio.get_running_loop().call_later(1.01, session.stop)
        await session.run()
        return Story(session, asyncio.get_running_loop().time())

    story = run(main())
    assert story.took_s == pytest.approx(1.01)
    assert len(story.rows) == 11
    assert [row.outcome for row in story.rows[-5:]] == [Outcome.LOST] * 5


@pytest.mark.parametrize(
    ("stream_s", "fps", "ticks"),
    [(28, 15, 420), (1.1, 10, 11), (0.05, 10, 1), (2, 12.5, 25), (2.01, 12.5, 26), (0.3, 10, 3)],
)
def test_expected_ticks(stream_s: float, fps: float, ticks: int) -> None:
    assert expected_ticks(stream_s, fps) == ticks


@settings(max_examples=40, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["ok", "late", "drop", "never", "ack only"]), max_size=30),
    fps=st.sampled_from([3.0, 7.5, 15.0, 29.97]),
    limit=st.integers(1, 5),
)
def test_every_tick_has_one_row_and_one_outcome(fates: list[str], fps: float, limit: int) -> None:
    def script(frame: Frame) -> list[tuple[float, Event | Exception]]:
        fate = fates[frame.id] if frame.id < len(fates) else "ok"
        if fate == "never":
            return []
        if fate == "ack only":
            return [(0.01, Ack(frame.id, 0.1))]
        if fate == "drop":
            return [(0.01, answer(frame, Outcome.DROPPED, "too late"))]
        return prompt(0.02 if fate == "ok" else 0.2)(frame)

    story = stream(ScriptedServer(script), fps=fps, in_flight_limit=limit)
    assert [row.frame for row in story.rows] == list(range(expected_ticks(2, fps)))
    assert sum(story.session.counts().values()) == len(story.rows)
    late = {row.frame for row in story.rows if row.e2e_ms > 100}
    assert late == {row.frame for row in story.rows if row.outcome is Outcome.LATE}


def test_the_same_script_gives_the_same_rows() -> None:
    once, again = (repr(stream(ScriptedServer(prompt())).rows) for _ in range(2))
    assert once == again


def test_what_the_server_drops_tells_that_it_is_slow() -> None:
    def busy(frame: Frame) -> list[tuple[float, Event | Exception]]:
        dropped = Answer(
            id=frame.id, outcome=Outcome.DROPPED, reason=Reason.TOO_LATE, next_px=608, server_ms=20
        )
        return [(0.01, Ack(frame.id, 1.0)), (0.03, dropped)]

    def turning(frame: Frame) -> list[tuple[float, Event | Exception]]:
        return busy(frame) if frame.id < 6 else prompt(next_px=608)(frame)

    asked = {"fps": 1, "slo_ms": 1000, "stream_s": 10}
    quick, slow = (stream(ScriptedServer(said), **asked) for said in (prompt(next_px=608), turning))
    assert quick.rows[8].px_sent == 608
    assert slow.rows[8].px_sent == 128  # 10 ms elsewhere: it would have taken more than 990
