"""A session's connection: made, lost, and made again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random

from client.transport import Transport
from jellyfish.errors import JellyfishError, RejectedError, RunError

FIRST_S = 10.0  # to get the first connection, on a link as slow as a trace may be
CONNECT_S, REJOIN_S = 1.0, 2.5  # to reach a server again; to get a seat there
PAUSE_S = 0.1, 0.5  # first and longest pause between two tries; it doubles
STEADY_S = 5.0  # a connection that has lived so long is followed by another at once


class Connection:
    """Keeps a transport connected.

    Args:
        transport: the way to the servers.
        register: has the transport register, and takes what the server says.
        rng: draws how long to wait before another try.
        give_up_s: see `client.session.SessionConfig`.

    Attributes:
        up: whether there is one now.
        lost: why there is none, or was none before.
        count: how often one was made.
    """

    def __init__(
        self,
        transport: Transport,
        register: Callable[[], Awaitable[None]],
        rng: Random,
        give_up_s: float | None,
    ) -> None:
        self._transport, self._register, self._rng = transport, register, rng
        self._give_up_s = give_up_s
        self._pauses = self._longer_and_longer()
        self._since_s = 0.0
        self.up, self.lost, self.count = False, "", 0

    async def first(self) -> None:
        """Connect and register.

        Raises:
            RejectedError: the server refuses; where there are several, each does.
            RunError: none can be reached in FIRST_S.
            ProtocolError: what it says makes no sense.
        """
        begin_s, refusals = _now(), 0
        for pause_s in self._longer_and_longer():
            await asyncio.sleep(pause_s)
            try:
                await self._connect(FIRST_S, FIRST_S)
                return
            except RejectedError:
                refusals += 1
                if refusals >= self._transport.servers:
                    raise
            except RunError:
                if _now() - begin_s >= FIRST_S:
                    raise

    def lose(self, why: str) -> None:
        """Take note that the connection is lost."""
        self.up, self.lost = False, why
        if _now() - self._since_s >= STEADY_S:
            self._pauses = self._longer_and_longer()

    async def again(self) -> bool:
        """Return True with another connection, or False when it is time to give up."""
        lost_s, give_up_s = _now(), self._give_up_s
        while give_up_s is None or _now() - lost_s < give_up_s:
            await asyncio.sleep(next(self._pauses))
            try:
                await self._connect(CONNECT_S, REJOIN_S)
                return True
            except JellyfishError as error:
                self.lost = str(error)
        return False

    async def _connect(self, connect_s: float, join_s: float) -> None:
        """Get a connection and a seat, the one of before if there is one, each in its time."""
        try:
            async with asyncio.timeout(connect_s):
                await self._transport.connect()
        except TimeoutError:
            raise RunError(f"no server answers within {connect_s:g} s") from None
        try:
            async with asyncio.timeout(join_s):
                if not (self.count and await self._transport.resume()):
                    await self._register()
        except TimeoutError:
            raise RunError(f"the server gives no seat within {join_s:g} s") from None
        self.up, self._since_s = True, _now()
        self.count += 1

    def _longer_and_longer(self) -> Iterator[float]:
        """Yield how long to wait before each try: not at all, then longer and longer."""
        yield 0.0
        pause_s, most_s = PAUSE_S
        while True:
            yield pause_s * self._rng.uniform(0.5, 1)
            pause_s = min(2 * pause_s, most_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
