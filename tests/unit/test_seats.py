"""Seats in virtual time: registrations, quotas, silence, coming back, and why one is out."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from experiment import virtual_time
from jellyfish.errors import RejectedError
from jellyfish.messages import Ack, Event, Frame, Heartbeat
from server import seats
from server.engine import NotServing, ServerFull
from server.seats import Ending, Peer, Seats, SeatStream, UnknownToken
from server.settings import EngineConfig
from tests.engine_world import LoopWorker, engine_of, profile

HOME, AWAY = Peer("10.0.0.1"), Peer("10.0.0.2")


class Reader:
    """Reads what a stream tells, as long as `reads`."""

    def __init__(self, desk: Seats, token: str, peer: Peer = HOME, reads: bool = True) -> None:
        self.told: list[Event] = []
        self.reads, self._stream = reads, None
        self._stream = desk.open(token, peer, self.wake)
        self.wake()

    @property
    def stream(self) -> SeatStream:
        assert self._stream is not None
        return self._stream

    @property
    def ending(self) -> Ending | None:
        return self.stream.ending[0] if self.stream.ending else None

    def wake(self) -> None:
        while self._stream and self.reads and (event := self._stream.unread()) is not None:
            self._stream.told()
            self.told.append(event)


def token(desk: Seats, peer: Peer = HOME, fps: float = 10, name: str = "a") -> str:
    return desk.register(peer, name, fps, 500).token


async def desk_of(per_peer: int | None = None, **config: Any) -> Seats:
    engine = await engine_of([LoopWorker(profile(), load_s=0)], config=EngineConfig(**config))
    return Seats(engine, per_peer)


def clients(desk: Seats) -> list[str]:
    return [client.name for client in desk._engine.clients]


def play(main: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(main)


def frame(number: int) -> Frame:
    return Frame(number, b"t", b"jpeg", 128, 50_000.0, 1.0)


def test_a_seat_counts_once_its_stream_is_open() -> None:
    async def main() -> None:
        desk = await desk_of(max_clients=2)
        first = token(desk)
        assert clients(desk) == []
        Reader(desk, first)
        assert clients(desk) == ["a"]

    play(main())


def test_registrations_without_a_stream_keep_nobody_out() -> None:
    async def main() -> None:
        desk = await desk_of(max_clients=8)
        honest = token(desk, AWAY, name="honest")
        flood = [token(desk, Peer(f"10.1.0.{number % 3}")) for number in range(1000)]
        late = token(desk, AWAY, name="late")
        for waiting in (honest, late):
            Reader(desk, waiting, AWAY)
        assert clients(desk) == ["honest", "late"]
        assert len(desk._pending) <= 8
        with pytest.raises(UnknownToken):
            Reader(desk, flood[0], Peer("10.1.0.0"))

    play(main())


def test_a_registration_expires() -> None:
    async def main() -> None:
        desk = await desk_of()
        first, second = token(desk), token(desk)
        await asyncio.sleep(seats.PENDING_S - 0.1)
        Reader(desk, first)
        await asyncio.sleep(0.2)
        with pytest.raises(UnknownToken):
            Reader(desk, second)
        token(desk)
        assert len(desk._pending) == 1

    play(main())


def test_a_peer_has_a_quota_and_the_server_a_limit() -> None:
    async def main() -> None:
        desk = await desk_of(max_clients=4)
        tokens = [token(desk) for _ in range(2)]
        spare = token(desk, Peer("10.0.0.3"))
        first, _ = (Reader(desk, mine) for mine in tokens)
        with pytest.raises(ServerFull, match=r"takes 2 clients of 10\.0\.0\.1"):
            token(desk)
        others = [token(desk, AWAY) for _ in range(2)]
        for theirs in others:
            Reader(desk, theirs, AWAY)
        with pytest.raises(ServerFull, match="takes 4 clients"):
            Reader(desk, spare, Peer("10.0.0.3"))
        desk.unregister(tokens[0], HOME)
        first.stream.close()
        token(desk)

    play(main())


@pytest.mark.parametrize("fps", [1e-9, 5e-324, 0.09, 1001.0, float("nan"), float("inf")])
def test_rates_out_of_bounds_are_named(fps: float) -> None:
    async def main() -> None:
        desk = await desk_of()
        with pytest.raises(RejectedError, match=r"want 0\.1 to 1000"):
            token(desk, fps=fps)
        with pytest.raises(RejectedError, match="60000 at most"):
            desk.register(HOME, "a", 10, 1e300)

    play(main())


@pytest.mark.parametrize(("fps", "silence_s"), [(300, 10), (10, 10), (0.2, 15), (0.1, 30)])
def test_silence_ends_a_stream(fps: float, silence_s: float) -> None:
    async def main() -> None:
        desk = await desk_of()
        reader = Reader(desk, token(desk, fps=fps))
        await asyncio.sleep(silence_s - 1)
        reader.stream.heard()
        await asyncio.sleep(silence_s - 0.1)
        assert reader.ending is None
        assert len(reader.told) >= silence_s * 3  # heartbeats, all along
        await asyncio.sleep(0.1 + seats.HEARTBEAT_S)
        assert reader.stream.ending == (Ending.SILENT, f"was silent for {silence_s:g} s")
        assert clients(desk) == []

    play(main())


def test_heartbeats_fill_silence_and_only_that() -> None:
    async def main() -> None:
        desk = await desk_of()
        reader = Reader(desk, token(desk, fps=100))
        for number in range(40):
            desk._engine.submit(reader.stream.client, frame(number))
            reader.stream.heard()
            await asyncio.sleep(0.1)
        assert not any(isinstance(event, Heartbeat) for event in reader.told)
        before = len(reader.told)
        await asyncio.sleep(5)
        assert reader.told[before:] == [Heartbeat()] * 9  # the first half second was not silent

    play(main())


def test_who_comes_back_in_time_finds_its_seat_and_what_it_has_not_read() -> None:
    async def main() -> None:
        desk = await desk_of()
        mine = token(desk)
        reader = Reader(desk, mine, reads=False)
        client = reader.stream.client
        desk._engine.submit(client, frame(7))
        reader.stream.close("its connection broke")
        await asyncio.sleep(seats.RESUME_S - 0.1)
        again = Reader(desk, mine)
        assert again.stream.client is client
        ack, answer = again.told
        assert isinstance(ack, Ack)
        assert (answer.id, answer.outcome) == (7, "ok")  # type: ignore[union-attr]
        await asyncio.sleep(3 * seats.RESUME_S / 2)
        assert again.ending is None

    play(main())


def test_who_does_not_come_back_frees_its_seat() -> None:
    async def main() -> None:
        desk = await desk_of()
        mine = token(desk)
        Reader(desk, mine).stream.close()
        await asyncio.sleep(seats.RESUME_S - 0.1)
        assert clients(desk) == ["a"]
        await asyncio.sleep(0.2)
        assert clients(desk) == []
        with pytest.raises(UnknownToken):
            Reader(desk, mine)

    play(main())


def test_who_is_away_takes_no_capacity_until_it_is_back() -> None:
    async def main() -> None:
        desk = await desk_of()
        name = token(desk)
        reader = Reader(desk, name)
        (client,) = desk._engine.clients
        await asyncio.sleep(1)
        assert client.gpu is not None
        reader.stream.close()
        await asyncio.sleep(1)  # a plan later; it sent nothing for less than QUIET_S
        assert client.gpu is None
        Reader(desk, name)
        await asyncio.sleep(0.1)
        assert client.gpu is not None

    play(main())


def test_a_clean_end_frees_the_seat_at_once() -> None:
    async def main() -> None:
        desk = await desk_of()
        for by_token in (True, False):
            mine = token(desk)
            reader = Reader(desk, mine)
            if by_token:
                desk.unregister(mine, HOME)
            else:
                reader.stream.leave()
            assert reader.ending is Ending.CLEAN
            assert clients(desk) == []
            with pytest.raises(UnknownToken):
                desk.unregister(mine, HOME)

    play(main())


def test_a_new_stream_takes_the_seat_over() -> None:
    async def main() -> None:
        desk = await desk_of()
        mine = token(desk)
        old, new = Reader(desk, mine, reads=False), Reader(desk, mine)
        assert (old.ending, new.ending) == (Ending.TAKEN_OVER, None)
        desk._engine.submit(new.stream.client, frame(1))
        await asyncio.sleep(0.2)
        assert len(new.told) == 2
        assert old.stream.unread() is None
        old.stream.told()  # its last write is over: nothing is lost for the new one
        old.stream.close()
        await asyncio.sleep(2 * seats.RESUME_S / 2)
        assert new.ending is None
        assert clients(desk) == ["a"]

    play(main())


def test_a_token_belongs_to_a_certificate() -> None:
    async def main() -> None:
        desk = await desk_of()
        phone, thief = Peer("10.0.0.1", "phone"), Peer("10.0.0.1", "thief")
        mine = token(desk, phone)
        for wrong in (thief, Peer("10.0.0.1")):
            with pytest.raises(UnknownToken):
                Reader(desk, mine, wrong)
        reader = Reader(desk, mine, phone)
        for wrong in (thief, Peer("10.0.0.1")):
            with pytest.raises(UnknownToken):
                Reader(desk, mine, wrong)
            with pytest.raises(UnknownToken):
                desk.unregister(mine, wrong)
        Reader(desk, mine, Peer("10.9.9.9", "phone"))  # another network, the same phone
        assert reader.ending is Ending.TAKEN_OVER

    play(main())


def test_who_does_not_read_is_out_and_counts_until_its_stream_is_closed() -> None:
    async def main() -> None:
        desk = await desk_of(per_peer=1, max_clients=4)
        reader = Reader(desk, token(desk, fps=300), reads=False)
        client = reader.stream.client
        for number in range(seats.UNREAD_LIMIT):
            desk._engine.refuse(client, number, "nonsense")
        assert reader.ending is None
        desk._engine.refuse(client, 9999, "nonsense")
        assert reader.stream.ending == (Ending.UNREAD, "left 1024 messages unread")
        assert clients(desk) == []
        assert not reader.stream._seat.unread  # nor does it keep what it was to be told
        with pytest.raises(ServerFull):
            token(desk)
        reader.stream.close()
        token(desk)

    play(main())


def test_who_is_away_is_out_as_well_when_too_much_waits_for_it() -> None:
    async def main() -> None:
        desk = await desk_of()
        reader = Reader(desk, token(desk))
        client = reader.stream.client
        reader.stream.close()
        for number in range(seats.UNREAD_LIMIT + 1):
            desk._engine.refuse(client, number, "nonsense")
        assert clients(desk) == []

    play(main())


def test_streams_that_are_not_closed_are_counted_when_a_seat_is_taken_over() -> None:
    async def main() -> None:
        desk = await desk_of(per_peer=2)
        mine = token(desk)
        readers = [Reader(desk, mine) for _ in range(3)]
        with pytest.raises(ServerFull, match="does not read"):
            Reader(desk, mine)
        readers[0].stream.close()
        Reader(desk, mine)

    play(main())


def test_whom_the_engine_puts_out_is_told() -> None:
    async def main() -> None:
        desk = await desk_of()
        reader = Reader(desk, token(desk))
        desk._engine.leave(reader.stream.client)
        await asyncio.sleep(2 * seats.HEARTBEAT_S)
        assert reader.ending is Ending.PUT_OUT

    play(main())


def test_at_the_end_everybody_reads_what_there_is_and_is_sent_away() -> None:
    async def main() -> None:
        desk = await desk_of()
        reader, slow = Reader(desk, token(desk)), Reader(desk, token(desk), reads=False)
        for one in (reader, slow):
            desk._engine.submit(one.stream.client, frame(1))
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        await desk.close(0.5)
        assert loop.time() - begin_s <= 0.55
        assert len(reader.told) == 2
        for one in (reader, slow):
            assert one.stream.ending == (Ending.STOPPING, "server stopping")
        await desk._engine.stop(0)
        with pytest.raises(NotServing):
            token(desk)

    play(main())
