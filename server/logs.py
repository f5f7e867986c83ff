"""Log lines on stderr that nobody waits for: a pipe that is not read costs lines, not frames."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from logging.handlers import QueueHandler
from textwrap import indent

LINES = 1000  # that may wait for whoever reads stderr
RETRY_S = 0.05
_STDERR = 2


class Formatter(logging.Formatter):
    """One line a message: what a client calls itself cannot forge another.

    A traceback follows on indented lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, control characters escaped."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei) -> str:  # type: ignore[no-untyped-def]  # noqa: N802
        """Return the traceback, indented, control characters escaped."""
        lines = super().formatException(ei).splitlines()
        return indent("\n".join(map(escaped, lines)), "    ")


def escaped(text: str) -> str:
    r"""Return `text` with what is not printable as \n, \x1b, \u202e and the like."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Stderr(QueueHandler):
    """Writes to stderr from a thread of its own, through a bounded queue.

    What does not fit is dropped and counted; the count is said once there is room again.

    Args:
        lines: that may wait.
    """

    def __init__(self, lines: int = LINES) -> None:
        self._lines: queue.Queue[str] = queue.Queue(lines)
        super().__init__(self._lines)
        self._dropped = 0  # ever; changed by who logs alone
        self._told = 0  # of those; changed by the writing thread alone
        self._thread = threading.Thread(target=self._write_forever, name="log", daemon=True)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, formatted before; never waits."""
        self.say(record.msg)

    def say(self, line: str) -> None:
        """Queue a line; never waits."""
        self.start()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def start(self) -> None:
        """Write from now on, in a thread that keeps to the cores of who starts it."""
        if self._thread.ident is None:
            self._thread.start()

    def flush_for(self, limit_s: float) -> None:
        """Wait until all is written, for `limit_s` at most."""
        deadline = time.monotonic() + limit_s
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _write_forever(self) -> None:
        while True:
            self.write(self._lines.get())

    def write(self, line: str) -> None:
        """Write a line from the queue, and how many were dropped once it is empty."""
        _write(line)
        if (dropped := self._dropped) > self._told and self._lines.empty():
            _write(f"{dropped - self._told} log lines were dropped: nobody read them")
            self._told = dropped
        self._lines.task_done()


def _write(line: str) -> None:
    """Write a line to stderr, however long that takes; pass over what cannot be written."""
    rest = (line + "\n").encode(errors="backslashreplace")
    while rest:
        try:
            rest = rest[os.write(_STDERR, rest) :]
        except BlockingIOError:  # whoever shares it made it so
            time.sleep(RETRY_S)
        except OSError:  # closed, or a full disk
            return


def log_to_stderr(line: str, level: int = logging.INFO) -> Stderr:
    """Have this process log to stderr from now on.

    Args:
        line: what a line looks like, as `logging.Formatter` wants it.
        level: of what is logged.
    """
    handler = Stderr()
    handler.setFormatter(Formatter(line))
    logging.basicConfig(level=level, handlers=[handler])
    return handler
