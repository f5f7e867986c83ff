"""Records that go to disk as they come, one JSON value a line, without holding up who makes them.

Whoever makes records only queues them. A thread of its owner runs `Journal.run`, which writes what
has come twice a second: a killed process loses no more than a second. A disk that stalls or is full
costs nobody time. Records wait in memory, are dropped and counted when they are too many, and
writing goes on where it stopped once there is room, so that no line is ever half written, but for
the last one of a process that was killed.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from jellyfish.errors import RunError
from jellyfish.files.atomic import write_json

log = logging.getLogger(__name__)

FLUSH_S = 0.5  # what is told as often is lost for at most a second
LIMIT_BYTES = 16 << 20  # that may wait for the disk, a file
LAST_LIFE = ".last"  # suffix of what an earlier process left

Jobs = Mapping[Path, Callable[[], None]]
"""Files, and what writes each."""


class Lines:
    """A file that grows by a line a record; what an earlier process left there is set aside.

    Made by `Journal.lines`.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path, self.failing = path, False
        self._limit_bytes = limit_bytes
        self._queue: deque[bytes] = deque()
        self._rest = memoryview(b"")  # of what is being written
        self._queued_bytes = 0  # ever; changed by who appends alone
        self._written_bytes = 0  # ever; changed by the writing thread alone
        self._dropped = 0
        self._file: FileIO | None = None
        if path.exists():
            path.replace(path.with_name(path.name + LAST_LIFE))

    def append(self, record: Any) -> None:
        """Queue a JSON value; never waits and never fails."""
        line = json.dumps(record).encode() + b"\n"
        if self._queued_bytes + len(line) - self._written_bytes > self._limit_bytes:
            if not self._dropped:
                log.warning("%s: the disk does not keep up; records are dropped", self.path)
            self._dropped += 1
            return
        self._queued_bytes += len(line)
        self._queue.append(line)

    @property
    def lost(self) -> int:
        """How many records are not in the file: dropped, or still waiting."""
        return self._dropped + len(self._queue) + bytes(self._rest).count(b"\n")

    def write(self) -> None:
        """Write what has come; what could not be written waits for the next call.

        Raises:
            OSError: the disk takes no more, or cannot be written to.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        while self._rest or self._queue:
            if not self._rest:
                several = [self._queue.popleft() for _ in range(len(self._queue))]
                self._rest = memoryview(b"".join(several))
            count = self._file.write(self._rest)
            self._rest = self._rest[count:]
            self._written_bytes += count

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Latest:
    """A file that holds the newest of a series of JSON values, written whole each time.

    Made by `Journal.latest`.
    """

    lost = 0  # the next value makes up for one that could not be written

    def __init__(self, path: Path) -> None:
        self.path, self.failing = path, False
        self._value: Any = None
        self._written: Any = None

    def replace(self, value: Any) -> None:
        """Have `value` written next; it must not change any more."""
        self._value = value

    def write(self) -> None:
        """Write the newest value unless it has been written.

        Raises:
            OSError: the disk takes no more, or cannot be written to.
        """
        value = self._value
        if value is not self._written:
            write_json(self.path, value)
            self._written = value

    def close(self) -> None:
        """Do nothing: no file stays open."""


class Journal:
    """The files that one process streams its records to; one that fails leaves the others alone.

    Args:
        limit_bytes: that may wait for the disk, a file.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[Lines | Latest] = []
        self._ending: SimpleQueue[Jobs] = SimpleQueue()
        self._ended: SimpleQueue[RunError | None] = SimpleQueue()

    def lines(self, path: Path) -> Lines:
        """Return a file for records; to be asked for before `run`."""
        self._parts.append(part := Lines(path, self._limit_bytes))
        return part

    def latest(self, path: Path) -> Latest:
        """Return a file for the newest of a series of values; to be asked for before `run`."""
        self._parts.append(part := Latest(path))
        return part

    def run(self) -> None:
        """Write until told to close: the work of a thread of the owner's."""
        jobs: Jobs | None = None
        while jobs is None:
            with suppress(Empty):
                jobs = self._ending.get(timeout=FLUSH_S)
            for _ in self.turn():
                pass
        try:
            self.finish(jobs)
            self._ended.put(None)
        except RunError as error:
            self._ended.put(error)

    def turn(self) -> Iterator[None]:
        """Write to each file what has come for it; yield after each."""
        for part in self._parts:
            _write(part)
            yield

    def finish(self, jobs: Jobs) -> None:
        """Close the files, and write those of `jobs`.

        Raises:
            RunError: some could not be written; it names them.
        """
        for part in self._parts:
            part.close()
            if part.lost:
                log.warning("%s lacks %d records", part.path, part.lost)
        write_each(jobs)

    def close(self, patience_s: float, jobs: Jobs) -> None:
        """Have all records written, and then the files of `jobs`, whatever becomes of each.

        Raises:
            RunError: some could not be written, or not within `patience_s`; it names them.
        """
        self._ending.put(jobs)
        try:
            error = self._ended.get(timeout=patience_s)
        except Empty:
            named = ", ".join(str(path) for path in jobs)
            error = RunError(f"the disk did not take {named} within {patience_s:g} s")
        if error is not None:
            raise error


def _write(part: Lines | Latest) -> None:
    """Write a part, and say when it begins to fail and when it works again."""
    try:
        part.write()
    except Exception as error:  # whatever it is: records of other kinds are to be written
        if not part.failing:
            log.warning("%s cannot be written, and is tried again: %s", part.path, reason(error))
        part.failing = True
    else:
        if part.failing:
            log.warning("%s is written again; %d records were dropped", part.path, part.lost)
        part.failing = False


def write_each(jobs: Jobs) -> None:
    """Do all `jobs`, whatever becomes of each.

    Raises:
        RunError: some failed; the text names each file, in one line.
    """
    failed = []
    for path, job in jobs.items():
        try:
            job()
        except Exception as error:  # a full disk, a damaged record: the others are to be written
            failed.append(f"{path} cannot be written: {reason(error)}")
    if failed:
        raise RunError("; ".join(failed))


def reason(error: Exception) -> str:
    """Return what an error says, in one line; of an OSError, what the system says."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())


def read_lines(path: Path) -> Iterator[Any]:
    """Yield the records in `path`.

    What is no whole line is passed over: the last one of a process that was killed.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n"):
                yield record
