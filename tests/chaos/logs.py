"""The server's log and the wall clock, simulated: its reader may block, the clock may step."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server import logs
from server.logs import Formatter, Stderr

if TYPE_CHECKING:
    from tests.chaos.world import World

LINE = "%(asctime)s %(levelname)s %(message)s"
ROOM = 20  # lines that may wait: few, so that they are soon too many
EPOCH_S = 1.7e9  # what the wall clock says at 0 s of the loop
OURS = ("server", "client", "jellyfish")


class SimStderr(Stderr):
    """The real queue of lines; its thread writes at once while somebody reads.

    Attributes:
        said: every line that was to be written, in order.
        written: what the reader got.
        waited: lines that found nobody reading.
        until_s: nobody reads until then.
        held_up_s: for how long writing a line held up the server.
    """

    def __init__(self, world: World) -> None:
        super().__init__(ROOM)
        self.setFormatter(Formatter(LINE))
        self._loop = world.loop
        self.said: list[str] = []
        self.written: list[str] = []
        self.waited = 0
        self.until_s = 0.0
        self.held_up_s = 0.0

    def start(self) -> None:
        """Start no thread."""

    def say(self, line: str) -> None:
        """Queue a line, and write it at once unless nobody reads."""
        self.said.append(line)
        super().say(line)
        if self._loop.time() < self.until_s:
            self.waited += 1
        else:
            self.drain()

    def block(self, until_s: float) -> None:
        """Read nothing until then; `drain` is due afterwards."""
        self.until_s = max(self.until_s, until_s)

    def drain(self) -> None:
        """Write all that waits."""
        while self._loop.time() >= self.until_s and not self._lines.empty():
            self.write(self._lines.get_nowait())

    def take(self, line: str) -> None:
        """Stand for the pipe: whoever writes while nobody reads stands still for as long."""
        held_up_s = max(0.0, self.until_s - self._loop.time())
        self.held_up_s += held_up_s
        self._loop.stall(held_up_s)
        self.written.append(line)


@contextmanager
def simulated_log(world: World) -> Iterator[None]:
    """Have the server log to the world's reader, and nobody else log anything."""
    original = logs._write
    logs._write = world.log.take
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in ("server", "jellyfish")]
    before = [(logger, logger.level, logger.propagate) for logger in [root, *ours]]
    root.setLevel(logging.CRITICAL + 1)
    for logger in ours:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(world.log)
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(world.log)
            logger.setLevel(level)
            logger.propagate = propagate
        logs._write = original


@contextmanager
def simulated_clock(world: World) -> Iterator[None]:
    """Have the wall clock follow the loop's, and tell who of ours reads it: the log may."""
    original = time.time

    def wall_s() -> float:
        reader = str(sys._getframe(1).f_globals.get("__name__"))
        if reader.partition(".")[0] in OURS:
            world.clock_readers.add(reader)
        return EPOCH_S + world.loop.time() + world.wall_offset_s

    time.time = wall_s
    try:
        yield
    finally:
        time.time = original
