"""What a client leaves on disk: streamed while it runs, made into its files at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from client.job import Job
from jellyfish.detections import Detections
from jellyfish.files.atomic import write_json
from jellyfish.files.detections import coco_entries, image_id
from jellyfish.files.journal import Jobs, Journal
from jellyfish.files.streams import DETECTIONS_LINES, FRAMES_LINES, as_record, client_jobs
from jellyfish.records import FrameRow
from jellyfish.trace import Trace

PATIENCE_S = 10.0  # with a disk that stalls


class Records:
    """Streams a client's rows and detections to its folder; nothing stays in memory.

    Args:
        job: the client's.
        size: width and height of the clip, in px.
        trace: of the uplink; None for no limit.
        started_s: says when the trace began, on the rows' clock; None as long as it has not.

    Attributes:
        frames, sent: how many rows there were, and of how many the frame was sent.
    """

    def __init__(
        self,
        job: Job,
        size: tuple[int, int],
        trace: Trace | None,
        started_s: Callable[[], float | None],
    ) -> None:
        self._job, self._size = job, size
        self._trace, self._started_s = trace, started_s
        self._early: list[FrameRow] = []  # before it is known when the trace began
        self._journal = Journal()
        self._rows = self._journal.lines(job.out_dir / FRAMES_LINES.format(job.client))
        self._found = self._journal.lines(job.out_dir / DETECTIONS_LINES.format(job.client))
        self._progress = self._journal.latest(job.path("progress.json"))
        self.frames = self.sent = 0

    def start(self) -> None:
        """Write from now on, in a thread."""
        threading.Thread(target=self._journal.run, name="records", daemon=True).start()

    def on_row(self, row: FrameRow, detections: Detections | None) -> None:
        """Take a row that is final."""
        self.frames += 1
        self.sent += row.bytes_up > 0
        if detections is not None and len(detections):
            image = image_id(self._job.client, row.frame)
            self._found.append(coco_entries({image: detections}, *self._size))
        self._early.append(row)
        if self._trace is None or self._started_s() is not None:
            self._write_rows()

    def tell(self, progress: dict[str, int]) -> None:
        """Let whoever watches the run know how it goes."""
        self._progress.replace(progress)

    def close(self, summary: dict[str, Any]) -> None:
        """Write what is left, and make the client's files of it.

        Raises:
            RunError: a file cannot be written; what was streamed stays where it is.
        """
        self._journal.close(PATIENCE_S, self.jobs(summary))

    def jobs(self, summary: dict[str, Any]) -> Jobs:
        """Return the client's files, and what makes each of what was streamed."""
        self._write_rows()
        path = self._job.path("json")
        jobs = client_jobs(self._job.out_dir, self._job.client)
        return {path: partial(write_json, path, summary), **jobs}

    def _write_rows(self) -> None:
        started_s = self._started_s()
        for row in self._early:
            if self._trace is not None and started_s is not None:
                row.bandwidth_true_kbps = self._trace.rate_kbps(row.capture_s - started_s)
            self._rows.append(as_record(row))
        self._early.clear()
