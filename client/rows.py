"""A session's rows: one a tick, passed on as soon as its frame has an outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from jellyfish.detections import Detections
from jellyfish.messages import Answer
from jellyfish.records import FrameRow, Outcome

OnRow = Callable[[FrameRow, Detections | None], None]


class Rows:
    """Keeps rows and what came back for them, or passes them on.

    Args:
        on_row: takes each row once it is final, and what came back for it; None to keep all.

    Attributes:
        kept: one row a tick, in order; empty where `on_row` takes them.
        detections: what came back, by tick; empty where `on_row` takes it.
    """

    def __init__(self, on_row: OnRow | None) -> None:
        self._on_row = on_row
        self._open: dict[int, FrameRow] = {}  # rows that are not final
        self._outcomes: Counter[Outcome] = Counter()  # of those that are
        self.kept: list[FrameRow] = []
        self.detections: dict[int, Detections] = {}

    def add(self, row: FrameRow) -> None:
        """Take the row of a new tick."""
        self._open[row.frame] = row
        if self._on_row is None:
            self.kept.append(row)

    def pass_on(self, in_flight: Mapping[int, FrameRow], astray: Mapping[int, FrameRow]) -> None:
        """Count and let go the rows of all ticks but those that may yet be answered."""
        if len(self._open) == len(in_flight) + len(astray):
            return
        for k in sorted(self._open.keys() - in_flight.keys() - astray.keys()):
            row = self._open.pop(k)
            self._outcomes[row.outcome] += 1
            if self._on_row is not None:
                self._on_row(row, self.detections.pop(k, None))

    def counts(self) -> dict[str, int]:
        """Return the number of frames with an outcome, by outcome."""
        return {outcome.value: self._outcomes[outcome] for outcome in Outcome}

    def so_far(self) -> dict[str, int]:
        """Return how many frames have an outcome by now, and how many of them are not `ok`."""
        settled = self._outcomes.total()
        return {"settled": settled, "missed": settled - self._outcomes[Outcome.OK]}


def fill(row: FrameRow, answer: Answer, size: int, now: float) -> None:
    """Note in a row what its answer says, received at `now` s in `size` bytes."""
    row.received_s, row.bytes_down = now, size
    row.e2e_ms = (now - row.capture_s) * 1000
    row.send_ms = (now - row.sent_s) * 1000
    row.outcome, row.reason = answer.outcome, answer.reason
    if answer.outcome is Outcome.OK and row.e2e_ms > row.slo_ms:
        row.outcome = Outcome.LATE
    if answer.dnn_px > 0:
        row.dnn_px, row.gpu, row.batch = answer.dnn_px, answer.gpu, answer.batch
    stages = answer.stages
    row.server_ms = answer.server_ms
    row.dispatch_ms, row.decode_ms = stages.dispatch_ms, stages.decode_ms
    row.wait_ms, row.execute_ms = stages.wait_ms, stages.execute_ms
