"""Messages on the wire to value classes and back. Whatever comes off the wire is checked here."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from operator import ge
from typing import Any

import numpy as np

from jellyfish.detections import Detections
from jellyfish.errors import ProtocolError
from jellyfish.messages import Ack, Answer, Event, Frame, Heartbeat, Registration
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.records import Outcome, Stages

MAX_CLASS = 2**31 - 1
MAX_PX = 16384  # more than any camera; larger numbers are nonsense
_TO_WIRE = {
    Outcome.OK: pb.OUTCOME_OK,
    Outcome.DROPPED: pb.OUTCOME_DROPPED,
    Outcome.REJECTED: pb.OUTCOME_REJECTED,
    Outcome.ERROR: pb.OUTCOME_ERROR,
}
_FROM_WIRE = {number: outcome for outcome, number in _TO_WIRE.items()}


def _milliseconds(value: float, name: str) -> float:
    if not (isfinite(value) and value >= 0):
        raise ProtocolError(f"{name} is {value}; want a finite number of ms, 0 or more")
    return float(value)


def _size(px: int, name: str) -> int:
    if not 0 < px <= MAX_PX:
        raise ProtocolError(f"{name} is {px}; want 1 to {MAX_PX} px")
    return int(px)


def frame_to_wire(frame: Frame) -> Any:
    """Return `frame` as a protobuf Frame."""
    return pb.Frame(
        id=frame.id,
        tag=frame.tag,
        image=frame.image,
        px=frame.px,
        bandwidth_kbps=frame.bandwidth_kbps,
        device_ms=frame.device_ms,
    )


def frame_from_wire(message: Any) -> Frame:
    """Return a protobuf Frame as a value.

    The bandwidth report passes as it is: the server's estimate ignores nonsense, and the frame
    is none the worse for it. The image is not looked at: the engine knows what may be in it.

    Raises:
        ProtocolError: px or device_ms is out of range.
    """
    return Frame(
        id=message.id,
        tag=message.tag,
        image=message.image,
        px=_size(message.px, "px"),
        bandwidth_kbps=message.bandwidth_kbps,
        device_ms=_milliseconds(message.device_ms, "device_ms"),
    )


def event_to_wire(event: Event) -> Any:
    """Return an event as a protobuf ServerMessage, filled in place: quicker than from parts."""
    message = pb.ServerMessage()
    if isinstance(event, Ack):
        message.ack.id, message.ack.server_ms = event.id, event.server_ms
    elif isinstance(event, Answer):
        _fill_result(message.result, event)
    else:
        message.heartbeat.SetInParent()
    return message


def event_from_wire(message: Any) -> Event:
    """Return a protobuf ServerMessage as a value.

    One of a kind that is not known here, from a server of tomorrow, tells that the server is alive.

    Raises:
        ProtocolError: it says something that cannot be meant.
    """
    kind = message.WhichOneof("kind")
    if kind == "ack":
        return Ack(message.ack.id, _milliseconds(message.ack.server_ms, "server_ms"))
    if kind == "result":
        return _answer_from_wire(message.result)
    return Heartbeat()


def _fill_result(result: Any, answer: Answer) -> None:
    result.id, result.outcome = answer.id, _TO_WIRE[answer.outcome]
    result.reason, result.server_ms = answer.reason, answer.server_ms
    result.next_px, result.dnn_px = answer.next_px, answer.dnn_px
    result.gpu, result.batch = answer.gpu, answer.batch
    stages, spent = result.stages, answer.stages
    stages.dispatch_ms, stages.decode_ms = spent.dispatch_ms, spent.decode_ms
    stages.wait_ms, stages.execute_ms = spent.wait_ms, spent.execute_ms
    detections, found = result.detections, answer.detections
    detections.boxes.extend(found.boxes.ravel().tolist())
    detections.scores.extend(found.scores.tolist())
    detections.classes.extend(found.classes.tolist())


def _answer_from_wire(result: Any) -> Answer:
    outcome = _FROM_WIRE.get(result.outcome)
    if outcome is None:
        raise ProtocolError(f"the answer to frame {result.id} has outcome {result.outcome}")
    stages = result.stages
    return Answer(
        id=result.id,
        outcome=outcome,
        reason=result.reason,
        next_px=_size(result.next_px, "next_px"),
        dnn_px=result.dnn_px,
        gpu=result.gpu,
        batch=result.batch,
        server_ms=_milliseconds(result.server_ms, "server_ms"),
        stages=Stages(
            dispatch_ms=_milliseconds(stages.dispatch_ms, "dispatch_ms"),
            decode_ms=_milliseconds(stages.decode_ms, "decode_ms"),
            wait_ms=_milliseconds(stages.wait_ms, "wait_ms"),
            execute_ms=_milliseconds(stages.execute_ms, "execute_ms"),
        ),
        detections=detections_from_wire(result.detections),
    )


def detections_from_wire(message: Any) -> Detections:
    """Return protobuf Detections as a value, highest score first.

    Raises:
        ProtocolError: lengths do not agree, a number is not finite, a score is not in 0 to 1 or
            a class index is too large.
    """
    n = len(message.scores)
    if len(message.boxes) != 4 * n or len(message.classes) != n:
        raise ProtocolError(
            f"detections: {len(message.boxes)} coordinates, {n} scores, "
            f"{len(message.classes)} classes"
        )
    if n == 0:
        return Detections.none()
    # As lists: for the few that a frame has, numpy would take ten times as long.
    boxes, scores, classes = list(message.boxes), list(message.scores), list(message.classes)
    if not isfinite(sum(boxes)):
        raise ProtocolError("detections: a coordinate is not finite")
    if not all(0 <= score <= 1 for score in scores):  # false for NaN too
        raise ProtocolError("detections: a score is not between 0 and 1")
    if max(classes) > MAX_CLASS:
        raise ProtocolError(f"detections: class {max(classes)} is too large")
    found = Detections(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        scores=np.array(scores, np.float32),
        classes=np.array(classes, np.int32),
    )
    if all(map(ge, scores, scores[1:])):
        return found
    return found.where(np.argsort(-found.scores, kind="stable"))


def registration_to_wire(registration: Registration) -> Any:
    """Return `registration` as a protobuf RegisterResponse."""
    return pb.RegisterResponse(
        token=registration.token,
        first_px=registration.first_px,
        input_px=registration.input_px,
        frame_bytes=registration.frame_bytes,
        heartbeat_s=registration.heartbeat_s,
    )


def registration_from_wire(message: Any) -> Registration:
    """Return a protobuf RegisterResponse as a value.

    Raises:
        ProtocolError: no token, no or unordered sizes, or a number that cannot be meant.
    """
    sizes = tuple(_size(px, "input_px") for px in message.input_px)
    weights = tuple(message.frame_bytes)
    if not message.token:
        raise ProtocolError("the server gave no token")
    if not sizes or any(a >= b for a, b in pairwise(sizes)):
        raise ProtocolError(f"input_px {sizes} must be ascending and not empty")
    if len(weights) != len(sizes) or not all(isfinite(w) and w > 0 for w in weights):
        raise ProtocolError(f"frame_bytes {weights} must be positive, one a size")
    if message.first_px not in sizes:
        raise ProtocolError(f"first_px {message.first_px} is none of {sizes}")
    if not (isfinite(message.heartbeat_s) and message.heartbeat_s > 0):
        raise ProtocolError(f"heartbeat_s is {message.heartbeat_s}; want a positive number")
    return Registration(
        token=message.token,
        first_px=message.first_px,
        input_px=sizes,
        frame_bytes=weights,
        heartbeat_s=message.heartbeat_s,
    )
