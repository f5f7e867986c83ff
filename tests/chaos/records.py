"""Records on the simulated disk: the real writers, and whether what they promise holds."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import Any

from client.job import Job
from client.records import PATIENCE_S as CLIENT_PATIENCE_S
from client.records import Records as ClientsRecords
from jellyfish.detections import Detections
from jellyfish.errors import RunError
from jellyfish.files.atomic import read_json
from jellyfish.files.journal import FLUSH_S, Jobs, Journal, Latest, Lines, read_lines
from jellyfish.records import FrameRow
from server.engine import Engine
from server.records import PATIENCE_S as SERVER_PATIENCE_S
from server.records import Records as ServersRecords
from tests.chaos.disk import STALL_S, Disk, Mount
from tests.chaos.faults import Client

LOST_S = 1.0  # at most, of what a killed process has recorded
SIZE = (640, 480)  # of the clip, in px


class Writer:
    """Plays the thread that runs the journal of one process, and notes what was recorded.

    Args:
        stalls: of the loop, with which what is played here stands still, too.

    Attributes:
        problems: what does not hold.
        failed: what could not be written at the end, in words.
    """

    def __init__(
        self, journal: Journal, mount: Mount, disk: Disk, stalls: list[tuple[float, float]]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._time, self._stalls = loop.time, stalls
        self._journal, self._mount, self._disk = journal, mount, disk
        self._jobs: asyncio.Future[Jobs] = loop.create_future()
        self._made: dict[Lines | Latest, list[tuple[float, Any]]] = {}
        self.problems: list[str] = []
        self.failed = ""
        for part in journal._parts:
            name = "append" if isinstance(part, Lines) else "replace"
            self._made[part] = []
            setattr(part, name, partial(self._note, self._made[part], getattr(part, name)))
        self._task = loop.create_task(self._run(), name="records")

    def _note(self, made: list[tuple[float, Any]], take: Any, record: Any) -> None:
        made.append((self._time(), record))
        take(record)

    async def _run(self) -> None:
        while not self._jobs.done():
            await asyncio.wait([self._jobs], timeout=FLUSH_S)
            for _ in self._journal.turn():
                await self._take_time()
        try:
            self._journal.finish(self._jobs.result())
        except RunError as error:
            self.failed = str(error)
        await self._take_time()

    async def _take_time(self) -> None:
        """Let as much time pass as the disk took."""
        spent_s = self._mount.spent()
        if spent_s:
            await asyncio.sleep(spent_s)
            self._mount.settle()

    async def close(self, jobs: Jobs, patience_s: float) -> None:
        """End as `Journal.close` does: what takes longer is cut short by the process's end."""
        self._jobs.set_result(jobs)
        _, pending = await asyncio.wait([self._task], timeout=patience_s)
        if pending:
            self.failed = "the disk took too long"
            self.kill()
        else:
            self._check(ended=True)

    def kill(self) -> None:
        """End in the middle of whatever is written."""
        if not self._task.done():
            self._task.cancel()
            self._mount.killed()
            self._check(ended=False)

    # --- what must be there

    def _check(self, ended: bool) -> None:
        for part, made in self._made.items():
            horizon_s = self._horizon_s(part.path.name, ended)
            due = sum(at_s <= horizon_s for at_s, _ in made)
            records = [record for _, record in made]
            if isinstance(part, Lines):
                self._check_lines(part, records, due)
            elif due and not ended:
                self._check_latest(part, records, due)

    def _check_lines(self, part: Lines, made: list[Any], due: int) -> None:
        """What is there must be what was recorded first, and as much as was due."""
        name = part.path.name
        found = list(read_lines(part.path)) if part.path.exists() else []
        if found != made[: len(found)]:
            self.problems.append(f"{name} holds what was not recorded so")
        elif len(found) < due and not self._made_into_another(part):
            self.problems.append(f"{name} has {len(found)} records; {due} were due")

    def _made_into_another(self, part: Lines) -> bool:
        return self._jobs.done() and not self.failed and not part.path.exists()

    def _check_latest(self, part: Latest, made: list[Any], due: int) -> None:
        if not part.path.exists():
            self.problems.append(f"{part.path.name} is missing")
        elif read_json(part.path) not in made[due - 1 :]:
            self.problems.append(f"{part.path.name} is old")

    def _horizon_s(self, name: str, ended: bool) -> float:
        """Return until when all that was recorded must be on the disk now."""
        now_s = self._time()
        horizon_s = now_s if ended else now_s - LOST_S
        for begin_s, settled_s in self._behind(name):
            if begin_s <= now_s < settled_s:
                horizon_s = min(horizon_s, begin_s - LOST_S)
        return horizon_s

    def _behind(self, name: str) -> list[tuple[float, float]]:
        """Return from when until when the disk may be behind, one after the other."""
        windows = [
            (trouble.begin_s, trouble.end_s + LOST_S + (2 * STALL_S if trouble.stalls else 0.0))
            for trouble in self._disk.troubles
            if trouble.stalls or trouble.hits(name)
        ]
        windows += [(begin_s, end_s + LOST_S) for begin_s, end_s in self._stalls]
        merged: list[tuple[float, float]] = []
        for begin_s, settled_s in sorted(windows):
            earlier = merged.pop() if merged and begin_s <= merged[-1][1] else (inf, -inf)
            merged.append((min(begin_s, earlier[0]), max(settled_s, earlier[1])))
        return merged


class ServerRecords(ServersRecords):
    """The server's, written by a task."""

    def __init__(self, disk: Disk, stalls: list[tuple[float, float]]) -> None:
        mount = Mount(disk)
        super().__init__(mount.path("/server"))
        self.writer = Writer(self._journal, mount, disk, stalls)
        self._keeping: asyncio.Task[None] | None = None

    def keep(self, engine: Engine) -> None:
        """Write down again and again how it stands."""
        loop = asyncio.get_running_loop()
        self._keeping = loop.create_task(self.keep_state(engine.state), name="state")

    async def end(self, engine: Engine) -> None:
        """End in order, as server.process does."""
        self._stop()
        await self.writer.close(_simulated(self.jobs(engine.state())), SERVER_PATIENCE_S)

    def kill(self) -> None:
        """End at once."""
        self._stop()
        self.writer.kill()

    def _stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()


class ClientRecords(ClientsRecords):
    """A client's, written by a task."""

    def __init__(
        self, i: int, client: Client, disk: Disk, stalls: list[tuple[float, float]]
    ) -> None:
        mount = Mount(disk)
        job = Job(
            name=f"client-{i}",
            client=i,
            server="",
            fps=client.fps,
            slo_ms=client.slo_ms,
            stream_s=0.0,
            clip={},
            out_dir=mount.path("/clients"),
        )
        super().__init__(job, SIZE, None, lambda: None)
        self.writer = Writer(self._journal, mount, disk, stalls)
        self.rows: list[FrameRow] = []

    def on_row(self, row: FrameRow, detections: Detections | None) -> None:
        """Keep a row for the checks, too."""
        self.rows.append(row)
        super().on_row(row, detections)

    async def end(self) -> None:
        """End in order, as the client does."""
        jobs = _simulated(self.jobs({"frames": self.frames}))
        await self.writer.close(jobs, CLIENT_PATIENCE_S)


def _simulated(jobs: Jobs) -> Jobs:
    """Return those of `jobs` that write no table: arrow writes to no simulated disk."""
    return {path: job for path, job in jobs.items() if path.suffix == ".json"}
