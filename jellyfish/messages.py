"""What clients and server say to each other, as values: the same over gRPC and in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from jellyfish.detections import Detections
from jellyfish.records import Outcome, Stages


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame on its way to the server."""

    id: int  # chosen by the client; its answer carries the same
    tag: bytes  # opaque: tells an emulated device which frame this is
    image: bytes  # JPEG
    px: int  # the image is px x px
    bandwidth_kbps: float  # the client's present estimate
    device_ms: float  # from capture tick to send


@dataclass(frozen=True, slots=True)
class Ack:
    """The server has frame `id`; it took `server_ms` from receipt to say so."""

    id: int
    server_ms: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The server is alive and has nothing else to say."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of frame `id` on the server: `ok`, `dropped`, `rejected` or `error`."""

    id: int
    outcome: Outcome
    reason: str
    next_px: int  # size to send next
    dnn_px: int = 0  # 0: no DNN ran
    gpu: int = -1  # -1: none
    batch: int = 0  # frames in the batch that it ran in
    server_ms: float = 0.0  # from receipt of the frame to this answer
    stages: Stages = field(default_factory=Stages)
    detections: Detections = field(default_factory=Detections.none)


@dataclass(frozen=True, slots=True)
class Registration:
    """What a client gets on joining."""

    token: str
    first_px: int  # size of the first frame
    input_px: tuple[int, ...]  # sizes of the zoo, ascending
    frame_bytes: tuple[float, ...]  # what a frame of each size weighs, from the profile
    heartbeat_s: float  # the server is silent no longer than this


Event = Ack | Answer | Heartbeat
