"""What became of a frame: outcomes, reasons, stage times, and the row that a client keeps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a captured frame. Every captured frame has exactly one."""

    OK = "ok"  # answered before its deadline
    LATE = "late"  # answered after its deadline
    DROPPED = "dropped"  # the server answered that it cannot make its deadline
    REJECTED = "rejected"  # never sent: the client or the server refused it
    LOST = "lost"  # sent, and never answered
    ERROR = "error"  # the server answered that it failed


class Reason(StrEnum):
    """Why a frame is not `ok`; free text may follow after a colon."""

    NONE = ""
    TOO_LATE = "too late"  # lazy drop: it can no longer make its deadline
    NOT_MAPPED = "not mapped"  # no GPU serves this client in the current plan
    IN_FLIGHT_LIMIT = "in-flight limit"  # too many unanswered frames of this client
    BYTES_LIMIT = "bytes limit"  # too many bytes of frames without an answer
    TOO_FAST = "faster than registered"  # a client that sends more than its fps
    NO_TIME = "cannot arrive in time"  # the client saw it, and did not send
    SOURCE_SLOW = "source too slow"  # the frame source had nothing at the tick
    NO_CONNECTION = "no connection"  # the client had none at the tick
    CONNECTION_LOST = "connection lost"  # the frame was under way, and no answer came afterwards
    NO_ANSWER = "no answer"  # the stream ended while it was under way
    NO_ROWS = "the client left no rows"  # of a failed run: its host was lost, or it was killed
    BAD_IMAGE = "bad image"
    WORKER_DIED = "worker died"
    KILLS_WORKERS = "workers die of its frames"  # a client that is put out
    STOPPING = "server stopping"


@dataclass(frozen=True, slots=True)
class Stages:
    """Milliseconds that a frame spent in each stage on the server.

    dispatch: hand-over to the worker process and back; decode: JPEG decode and resize of its
    batch; wait: in the queue; execute: forward pass, head decode and NMS of its batch.
    """

    dispatch_ms: float = 0.0
    decode_ms: float = 0.0
    wait_ms: float = 0.0
    execute_ms: float = 0.0


@dataclass(slots=True)
class FrameRow:
    """One captured frame as its client saw it. Times in s on the client's monotonic clock.

    NaN (numbers) and -1 (indices) mean that the frame never came that far.
    """

    client: int
    frame: int  # tick k, captured at start + k / fps
    clip_frame: int  # which frame of the looped clip, from 0
    fps: float
    slo_ms: float
    capture_s: float
    sent_s: float = float("nan")
    acked_s: float = float("nan")
    received_s: float = float("nan")
    e2e_ms: float = float("nan")  # received - capture: the headline latency
    send_ms: float = float("nan")  # received - sent: the published accounting
    outcome: Outcome = Outcome.LOST
    reason: str = ""
    px_sent: int = -1
    dnn_px: int = -1
    gpu: int = -1
    batch: int = -1
    bytes_up: int = 0
    bytes_down: int = 0
    bandwidth_est_kbps: float = float("nan")
    bandwidth_true_kbps: float = float("nan")
    server_ms: float = float("nan")  # from receipt to answer, on the server's clock
    dispatch_ms: float = float("nan")
    decode_ms: float = float("nan")
    wait_ms: float = float("nan")
    execute_ms: float = float("nan")
