"""What the engine keeps of each client, and of each of its frames until it is answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from jellyfish.bandwidth import ServerBandwidth, clamped, usable
from jellyfish.messages import Event, Frame
from jellyfish.records import Outcome, Reason
from server.suspicion import Suspicion

if TYPE_CHECKING:
    from server.gpu import Gpu

MAX_UNANSWERED = 64  # of one client: what bounds the memory that it can take
RATE_TOLERANCE = 1.25  # above the registered rate, for clocks that differ
BURST = 32  # frames that a network stall may deliver at once
FIRST_RESPONSE_BYTES = 300.0  # until one was sent
HEADER_BYTES, DETECTION_BYTES = 90, 22  # of an answer on the wire

QUIET_S, QUIET_FRAMES = 2.0, 3  # a client that sends nothing for so long, and longer at low rates

Deliver = Callable[[Event], None]
PutOut = Callable[[str], None]  # told why


@dataclass(slots=True)
class Counts:
    """Frames of one client: received = ok + dropped + rejected + error + abandoned + waiting."""

    received: int = 0
    ok: int = 0
    dropped: int = 0
    rejected: int = 0
    error: int = 0
    abandoned: int = 0  # the client had left before they were answered

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class Allowance:
    """A token bucket that fills at a little more than the registered rate.

    A client that floods takes nothing from the others beyond what it was admitted with.
    """

    def __init__(self, fps: float, now_s: float) -> None:
        self._rate = fps * RATE_TOLERANCE
        self._most = max(float(BURST), 2 * fps)
        self._left = self._most
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one frame; False when there are too many."""
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True, eq=False)
class ClientHandle:
    """A client that has joined. `gpu` is None while no GPU serves it.

    `planned` is False until a plan has considered it in the present state of the GPUs: its frames
    then wait for one instead of being dropped.
    """

    number: int
    name: str
    fps: float
    slo_ms: float
    deliver: Deliver
    joined_s: float
    weight: float  # of the newest value in running means
    window_s: float = 1.0  # of bandwidth reports
    put_out: PutOut | None = None  # called when the engine removes it; it has left already
    bandwidth: ServerBandwidth = field(init=False)
    counts: Counts = field(default_factory=Counts)
    device_ms: float = 0.0
    response_bytes: float = FIRST_RESPONSE_BYTES
    gpu: Gpu | None = None
    planned: bool = False
    heard_s: float = field(init=False)  # when its last frame came
    gone: bool = False
    away: bool = False  # its connection broke, and its seat waits for it
    unanswered: int = 0
    suspicion: Suspicion = field(default_factory=Suspicion)
    held_bytes: int = 0  # of its frames without an answer
    _allowance: Allowance = field(init=False)
    _quiet_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.bandwidth = ServerBandwidth(self.fps, window_s=self.window_s)
        self._allowance = Allowance(self.fps, self.joined_s)
        self.heard_s = self.joined_s
        self._quiet_s = max(QUIET_S, QUIET_FRAMES / self.fps)

    def quiet(self, now_s: float) -> bool:
        """Whether it sends nothing: it is away, or hogs what others could use."""
        if self.away and not self.unanswered:
            return True
        return now_s - self.heard_s > self._quiet_s

    def saw(self, frame: Frame, device_ms: float) -> None:
        """Take in what a frame says about its client and network."""
        self.bandwidth.report(frame.bandwidth_kbps)
        if device_ms < self.slo_ms:  # a frame that took longer is late anyway: a hiccup, no mean
            self.device_ms += self.weight * (device_ms - self.device_ms)

    def kbps_of(self, frame: Frame) -> float:
        """Return the bandwidth that `frame` came over: its report where that is one."""
        reported = frame.bandwidth_kbps
        return clamped(reported) if usable(reported) else self.bandwidth.kbps

    def refusal(self, now_s: float) -> Reason | None:
        """Return why one more frame is not taken now, if so."""
        if self.unanswered >= MAX_UNANSWERED:
            return Reason.IN_FLIGHT_LIMIT
        return None if self._allowance.take(now_s) else Reason.TOO_FAST

    def record(self) -> dict[str, Any]:
        """Return who it is and what became of its frames so far."""
        return {"name": self.name, "client": self.number, **self.counts.as_dict()}

    def answered(self, outcome: Outcome, detections: int) -> None:
        """Count an answer."""
        if outcome is Outcome.OK:
            self.counts.ok += 1
            self.response_bytes = HEADER_BYTES + DETECTION_BYTES * detections
        elif outcome is Outcome.DROPPED:
            self.counts.dropped += 1
        elif outcome is Outcome.REJECTED:
            self.counts.rejected += 1
        else:
            self.counts.error += 1


@dataclass(slots=True, eq=False)
class Pending:
    """A frame that waits for its answer. `deadline_s`: a batch with it must be done by then."""

    client: ClientHandle
    frame: Frame
    received_s: float
    deadline_s: float
    order: int  # of arrival, over all clients
    held_bytes: int  # what it takes in memory until it is answered
