"""The way to the server as a session sees it: gRPC, or a link in memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jellyfish.messages import Event, Frame, Registration


class Received(NamedTuple):
    """Something the server said, and what it weighed on the wire."""

    event: Event
    size: int  # bytes


class Transport(Protocol):
    """One client's way to its servers: `connect`, `register`, then `send` and `receive`.

    After a failure, `connect` again, and `resume` or `register`; at the end, `close`.

    Attributes:
        servers: how many there are to go to.
    """

    servers: int

    async def connect(self) -> None:
        """Open a new connection in place of the present one, if there is one.

        It is to the same server as before, or to the next one if that one could not be reached, has
        refused or is stopping.

        Raises:
            RunError: the server cannot be reached; the text names it.
        """

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join, and open the stream of frames.

        Raises:
            RejectedError: the server refuses; the text says why.
            RunError: the server is gone.
            ProtocolError: its answer makes no sense.
        """

    async def resume(self) -> bool:
        """Open the stream of frames at the seat that this client had before, with all its answers.

        Return False where the server knows nothing of it (any more).

        Raises:
            RejectedError, RunError: see `register`.
        """

    def send(self, frame: Frame) -> None:
        """Hand over a frame. Never waits: the session limits how many are under way."""

    async def receive(self) -> Received:
        """Return what the server says next. To cancel it may end the stream.

        Raises:
            RunError: the stream has ended; nothing more will come.
            RejectedError: the server does not know this client any more.
            ProtocolError: the message makes no sense.
        """

    async def close(self) -> None:
        """Leave and free all resources, within a second; safe to call in any state."""
