"""Defects in seats, service and sessions."""

from __future__ import annotations

from typing import Any

from tests.chaos.mutants import Mutant, instead


async def _gives_up(_: Any) -> bool:
    return False


def _skips_ticks(original: Any) -> Any:
    def tick(session: Any, k: int, capture_s: float) -> None:
        if session._connection.up:
            original(session, k, capture_s)

    return tick


MUTANTS = [
    Mutant(
        "a lost connection ends a client", "client.connection:Connection.again", instead(_gives_up)
    ),
    Mutant("ticks without a connection have no row", "client.session:Session._tick", _skips_ticks),
    Mutant("silence is forgiven", "server.seats:SILENCE_S", instead((1e9, 1e9))),
    Mutant("a seat never waits", "server.seats:RESUME_S", instead(0.0)),
]
