"""Defects in records, log and clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.chaos.logs import EPOCH_S
from tests.chaos.mutants import Mutant, instead


def _writes_nothing(journal: Any) -> Iterator[None]:
    yield from (None for _ in journal._parts)


def _forgets_what_did_not_fit(original: Any) -> Any:
    def write(lines: Any) -> None:
        try:
            original(lines)
        except OSError:
            lines._rest = memoryview(b"")
            raise

    return write


def _gives_up(original: Any) -> Any:
    def write(part: Any) -> None:
        if not part.failing:
            original(part)

    return write


def _all_or_none(part: Any) -> None:
    part.write()


def _writes_itself(stderr: Any, line: str) -> None:
    from server import logs

    logs._write(line)


def _by_the_wall() -> float:
    return time.time() - EPOCH_S  # the loop's time until the clock steps


MUTANTS = [
    Mutant(
        "records wait for the end", "jellyfish.files.journal:Journal.turn", instead(_writes_nothing)
    ),
    Mutant(
        "what did not fit on the disk is lost",
        "jellyfish.files.journal:Lines.write",
        _forgets_what_did_not_fit,
    ),
    Mutant("a file that failed once is given up", "jellyfish.files.journal:_write", _gives_up),
    Mutant(
        "one file that fails takes the others along",
        "jellyfish.files.journal:_write",
        instead(_all_or_none),
    ),
    Mutant("whoever logs waits for who reads", "server.logs:Stderr.say", instead(_writes_itself)),
    Mutant("a client goes by the wall clock", "client.session:_now", instead(_by_the_wall)),
]
