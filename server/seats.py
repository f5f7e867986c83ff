"""Who sits at the engine: registrations, seats, tokens, silence, heartbeats and unread messages.

All that it needs is an event loop. gRPC (`server.service`) and the links in memory
(`experiment.link`) are thin layers around it.

`Register` gives a token. The first stream that is opened with it takes a seat: only then does the
client join the engine. A stream that breaks leaves the seat to whoever comes back with the token
within RESUME_S; a clean end, an eviction or `Unregister` frees it at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from jellyfish.errors import RejectedError
from jellyfish.messages import Event, Heartbeat, Registration
from jellyfish.records import Reason
from server.clients import ClientHandle
from server.engine import Engine, ServerFull

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5  # a client hears from the server at least this often
SILENCE_S = (10.0, 30.0)  # a client is out after three frames' time without one, within these
PENDING_S = 5.0  # a registration without a stream is forgotten
RESUME_S = 5.0  # a seat waits so long for its client to come back
UNREAD_LIMIT = 1024  # messages for a client that does not read them
NAME_LIMIT = 200
_SETTLE_POLL_S = 0.01


class UnknownToken(RejectedError):  # noqa: N818 - it says what the token is
    """Nobody has this token, or somebody else has."""


class Ending(Enum):
    """Why a stream has ended."""

    CLEAN = auto()  # the client has left
    SILENT = auto()
    UNREAD = auto()
    TAKEN_OVER = auto()  # by another stream with the same token
    PUT_OUT = auto()  # by the engine, or for what it sent
    STOPPING = auto()  # the server


class Peer(NamedTuple):
    """Who calls."""

    address: str  # what quotas count by
    owner: str | None = None  # name in the certificate: a token is good with the same one only


@dataclass(frozen=True)
class _Pending:
    """A registration that has no stream yet."""

    peer: Peer
    name: str
    fps: float
    slo_ms: float
    until_s: float


@dataclass(eq=False)
class Seat:
    """A client of the engine, and what it is to be told."""

    token: str
    peer: Peer
    silence_s: float
    heard_s: float
    told_s: float
    unread: deque[Event] = field(default_factory=deque)
    stream: SeatStream | None = None  # None: its client is away
    timer: asyncio.TimerHandle | None = None  # the next heartbeat, or the end of its absence
    _client: ClientHandle | None = None

    @property
    def client(self) -> ClientHandle:
        """The client; it joins before anybody sees the seat."""
        assert self._client is not None
        return self._client


class SeatStream:
    """One connection's use of a seat, from `Seats.open` to `close`.

    Attributes:
        ending: why it has ended, and in words; None while it lives.
    """

    def __init__(self, seats: Seats, seat: Seat, peer: Peer, wake: Callable[[], None]) -> None:
        self._seats, self._seat, self.peer, self.wake = seats, seat, peer, wake
        self.ending: tuple[Ending, str] | None = None

    @property
    def client(self) -> ClientHandle:
        """The engine's client."""
        return self._seat.client

    def heard(self) -> None:
        """Note that the client has said something."""
        self._seat.heard_s = self._seats.now_s

    def unread(self) -> Event | None:
        """Return what the client is to be told next; None for nothing."""
        return self._seat.unread[0] if self._seat.unread and self.ending is None else None

    def told(self) -> None:
        """Forget the event that `unread` has returned: the client was told."""
        if self.ending is None:  # a stream that took over tells it once more
            self._seat.unread.popleft()

    async def settled(self, limit_s: float) -> bool:
        """Wait until all is answered and told, for `limit_s` at most; return whether it is."""
        until_s = self._seats.now_s + limit_s
        while self.ending is None and (self._seat.unread or self.client.unanswered):
            if self._seats.now_s >= until_s:
                return False
            await asyncio.sleep(_SETTLE_POLL_S)
        return True

    def leave(self, ending: Ending = Ending.CLEAN, why: str = "has ended its stream") -> None:
        """Free the seat."""
        if self.ending is None:
            self._seats.remove(self._seat, ending, why)

    def close(self, why: str = "its connection broke") -> None:
        """Say that nothing more comes of this stream. A seat that it still has is kept a while."""
        self._seats.closed(self)
        if self.ending is None:
            self.ending = Ending.PUT_OUT, why
            self._seats.keep(self._seat, why)


class Seats:
    """All seats, for all connections.

    Args:
        engine: where clients join.
        per_peer: how many seats one peer may have, streams that have ended but whose client keeps
            them open by not reading included; None for half of what the engine takes.
        new_token: makes tokens; None for ones that nobody can guess.
    """

    def __init__(
        self,
        engine: Engine,
        per_peer: int | None = None,
        new_token: Callable[[], str] | None = None,
    ) -> None:
        self._engine = engine
        self._new_token = new_token or partial(secrets.token_hex, 16)
        self._most = engine.settings.config.max_clients
        self._per_peer = (self._most + 1) // 2 if per_peer is None else per_peer
        self._pending: dict[str, _Pending] = {}  # the oldest first
        self._seats: dict[str, Seat] = {}
        self._streams: set[SeatStream] = set()  # not closed yet
        self._loop = asyncio.get_running_loop()

    @property
    def now_s(self) -> float:
        """The loop's time."""
        return self._loop.time()

    # --- what clients ask for

    def register(self, peer: Peer, name: str, fps: float, slo_ms: float) -> Registration:
        """Return a token that is good for a seat.

        Raises:
            RejectedError: no plan could ever serve the client, or fps or SLO are out of bounds.
            ServerFull: the server, or this peer, has as many clients as it may.
            NotServing: no worker is alive, or the server is stopping.
        """
        self._engine.admit(fps, slo_ms)
        self._check_quota(peer)
        self._make_room(peer)
        token = self._new_token()
        until_s = self.now_s + PENDING_S
        self._pending[token] = _Pending(peer, _printable(name), fps, slo_ms, until_s)
        settings = self._engine.settings
        return Registration(
            token=token,
            first_px=settings.input_px[0],
            input_px=settings.input_px,
            frame_bytes=settings.frame_bytes,
            heartbeat_s=HEARTBEAT_S,
        )

    def open(self, token: str, peer: Peer, wake: Callable[[], None]) -> SeatStream:
        """Return a stream at the token's seat; one that it had before ends.

        Args:
            token: from `register`.
            peer: who opens it.
            wake: called whenever there is something to tell, or the stream has ended.

        Raises:
            UnknownToken: it was never given, to this peer's certificate, or is good no more.
            ServerFull, NotServing, RejectedError: see `register`.
        """
        seat = self._seats.get(token)
        if seat is None:
            seat = self._sit(token, peer)
        elif seat.peer.owner != peer.owner:
            raise UnknownToken("unknown token; register first")
        else:
            self._check_lingering(peer)
            self._end(seat, Ending.TAKEN_OVER, "another stream has taken this seat over")
            log.info("client %d (%s) is back", seat.client.number, seat.client.name)
            self._back(seat.client)
        stream = seat.stream = SeatStream(self, seat, peer, wake)
        self._streams.add(stream)
        seat.heard_s = seat.told_s = self.now_s
        self._set_timer(seat, HEARTBEAT_S, self._beat)
        return stream

    def unregister(self, token: str, peer: Peer) -> None:
        """Free the seat of a token, or forget its registration.

        Raises:
            UnknownToken: see `open`.
        """
        holder = self._seats.get(token) or self._pending.get(token)
        if holder is None or holder.peer.owner != peer.owner:
            raise UnknownToken("unknown token; register first")
        if isinstance(holder, Seat):
            self.remove(holder, Ending.CLEAN, "leaves")
        else:
            del self._pending[token]

    async def close(self, limit_s: float) -> None:
        """Let every client read what it was told, for `limit_s` at most, then free all seats."""
        streams = [seat.stream for seat in self._seats.values() if seat.stream is not None]
        await asyncio.gather(*(stream.settled(limit_s) for stream in streams))
        self._pending.clear()
        for seat in list(self._seats.values()):
            self.remove(seat, Ending.STOPPING, str(Reason.STOPPING))

    # --- registrations

    def _make_room(self, peer: Peer) -> None:
        """Forget registrations that are old, or too many: whoever has most loses the oldest."""
        now_s = self.now_s
        while self._pending:
            token, oldest = next(iter(self._pending.items()))
            if oldest.until_s > now_s:
                break
            del self._pending[token]
        counts = Counter(pending.peer.address for pending in self._pending.values())
        if counts[peer.address] >= self._per_peer:
            self._forget_oldest(peer.address)
        elif len(self._pending) >= self._most:
            self._forget_oldest(counts.most_common(1)[0][0])

    def _forget_oldest(self, address: str) -> None:
        oldest = (t for t, pending in self._pending.items() if pending.peer.address == address)
        del self._pending[next(oldest)]

    def _sit(self, token: str, peer: Peer) -> Seat:
        asked = self._pending.get(token)
        if asked is None or asked.until_s <= self.now_s or asked.peer.owner != peer.owner:
            raise UnknownToken("unknown token; register first")
        del self._pending[token]
        self._check_quota(peer)
        silence_s = min(max(SILENCE_S[0], 3 / asked.fps), SILENCE_S[1])
        seat = Seat(token, peer, silence_s, heard_s=self.now_s, told_s=self.now_s)
        deliver = partial(self._deliver, seat)
        put_out = partial(self.remove, seat, Ending.PUT_OUT)
        seat._client = self._engine.join(asked.name, asked.fps, asked.slo_ms, deliver, put_out)
        self._seats[token] = seat
        log.info("client %d (%s) joins from %s", seat.client.number, asked.name, peer.address)
        return seat

    def _check_quota(self, peer: Peer) -> None:
        seats = sum(seat.peer.address == peer.address for seat in self._seats.values())
        if seats + self._lingering(peer) >= self._per_peer:
            raise ServerFull(f"the server takes {self._per_peer} clients of {peer.address} at most")

    def _check_lingering(self, peer: Peer) -> None:
        if self._lingering(peer) >= self._per_peer:
            raise ServerFull(f"{peer.address} has too many streams that it does not read")

    def _lingering(self, peer: Peer) -> int:
        """Return how many streams of this peer have ended without being closed.

        gRPC cannot end a call in the middle of a message that the client does not read.
        """
        mine = (stream for stream in self._streams if stream.peer.address == peer.address)
        return sum(stream.ending is not None for stream in mine)

    # --- seats

    def _deliver(self, seat: Seat, event: Event) -> None:
        if len(seat.unread) >= UNREAD_LIMIT:
            self.remove(seat, Ending.UNREAD, f"left {UNREAD_LIMIT} messages unread")
            return
        seat.told_s = self.now_s
        seat.unread.append(event)
        if seat.stream is not None:
            seat.stream.wake()

    def _beat(self, seat: Seat) -> None:
        """Fill the server's silence, and look for the client's."""
        now_s = self.now_s
        if seat.client.gone:
            self.remove(seat, Ending.PUT_OUT, "was put out")
            return
        if now_s - seat.heard_s >= seat.silence_s:
            self.remove(seat, Ending.SILENT, f"was silent for {seat.silence_s:g} s")
            return
        if now_s - seat.told_s >= HEARTBEAT_S and not seat.unread:
            self._deliver(seat, Heartbeat())
        next_s = max(seat.told_s, now_s - HEARTBEAT_S / 2) + HEARTBEAT_S
        seat.timer = self._loop.call_at(next_s, self._beat, seat)

    def keep(self, seat: Seat, why: str) -> None:
        """Keep the seat of a client that is away, for RESUME_S."""
        seat.stream, seat.client.away = None, True
        gone = partial(self.remove, ending=Ending.PUT_OUT, why=f"is gone: {why}")
        self._set_timer(seat, RESUME_S, gone)

    def _back(self, client: ClientHandle) -> None:
        if client.away:
            client.away = False
            self._engine.returned(client)

    def remove(self, seat: Seat, ending: Ending, why: str) -> None:
        """Free a seat: its client leaves the engine, its stream ends."""
        if self._seats.pop(seat.token, None) is None:
            return
        if seat.timer is not None:
            seat.timer.cancel()
        log.info("client %d (%s) %s", seat.client.number, seat.client.name, why)
        self._engine.leave(seat.client)
        self._end(seat, ending, why)
        seat.unread.clear()  # a stream that does not end may hold the seat for long

    def closed(self, stream: SeatStream) -> None:
        """Count a stream no more."""
        self._streams.discard(stream)

    def _end(self, seat: Seat, ending: Ending, why: str) -> None:
        stream, seat.stream = seat.stream, None
        if stream is not None:
            stream.ending = ending, why
            stream.wake()

    def _set_timer(self, seat: Seat, delay_s: float, call: Callable[[Seat], None]) -> None:
        if seat.timer is not None:
            seat.timer.cancel()
        seat.timer = self._loop.call_later(delay_s, call, seat)


def _printable(name: str) -> str:
    """Return a client's name as it can stand in a line of a log, and not too long."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[:NAME_LIMIT])
