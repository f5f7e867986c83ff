"""The way to the server as a session sees it: gRPC, or a link in memory."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from jellyfish.messages import Event, Frame, Registration


class Received(NamedTuple):
    """Something the server said, and what it weighed on the wire."""

    event: Event
    size: int  # bytes


class Transport(Protocol):
    """One client's connection: `connect`, `register`, then `send` and `receive`, then `close`."""

    async def connect(self) -> None:
        """Reach the server.

        Raises:
            RunError: it cannot be reached; the text names it.
        """

    async def register(self, name: str, fps: float, slo_ms: float) -> Registration:
        """Join, and open the stream of frames.

        Raises:
            RejectedError: the server refuses; the text says why.
            RunError: the server is gone.
            ProtocolError: its answer makes no sense.
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
