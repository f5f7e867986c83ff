import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jellyfish.detections import Detections
from jellyfish.errors import ProtocolError
from jellyfish.messages import Ack, Answer, Event, Frame, Heartbeat, Registration
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.convert import (
    detections_from_wire,
    event_from_wire,
    event_to_wire,
    frame_from_wire,
    frame_to_wire,
    registration_from_wire,
    registration_to_wire,
)
from jellyfish.records import Outcome, Stages

NAN, INF = float("nan"), float("inf")


def wire(message: Any) -> Any:
    """Return `message` as it comes out at the other end."""
    return type(message).FromString(message.SerializeToString())


@pytest.mark.parametrize("outcome", ["ok", "dropped", "rejected", "error"])
@pytest.mark.parametrize("found", [0, 3])
def test_answers_survive_the_wire(outcome: str, found: int) -> None:
    rng = np.random.default_rng(0)
    detections = Detections(
        boxes=rng.random((found, 4)).astype(np.float32),
        scores=np.array([0.9, 0.5, 0.5][:found], np.float32),
        classes=np.array([3, 79, 0][:found], np.int32),
    )
    sent = Answer(7, Outcome(outcome), "why", 320, 256, 1, 4, 12.5, Stages(1, 2, 3, 4), detections)
    got = event_from_wire(wire(event_to_wire(sent)))
    assert isinstance(got, Answer)
    for name in ("id", "outcome", "reason", "next_px", "dnn_px", "gpu", "batch", "server_ms"):
        assert getattr(got, name) == getattr(sent, name)
    assert got.stages == sent.stages
    assert (got.detections.boxes == detections.boxes).all()
    assert (got.detections.scores == detections.scores).all()
    assert (got.detections.classes == detections.classes).all()


@pytest.mark.parametrize("event", [Ack(3, 0.25), Heartbeat()])
def test_other_events_survive_the_wire(event: Event) -> None:
    assert event_from_wire(wire(event_to_wire(event))) == event


@given(
    frame=st.builds(
        Frame,
        id=st.integers(0, 2**64 - 1),
        tag=st.binary(),
        image=st.binary(),
        px=st.integers(1, 16384),
        bandwidth_kbps=st.floats(allow_nan=False),
        device_ms=st.floats(0, 1e12),
    )
)
def test_frames_survive_the_wire(frame: Frame) -> None:
    assert frame_from_wire(wire(frame_to_wire(frame))) == frame


@pytest.mark.parametrize(
    ("field", "value"), [("px", 0), ("px", 2**32 - 1), ("device_ms", NAN), ("device_ms", -1.0)]
)
def test_frames_that_make_no_sense_are_refused(field: str, value: float) -> None:
    message = pb.Frame(id=1, px=128)
    setattr(message, field, value)
    with pytest.raises(ProtocolError, match=field):
        frame_from_wire(wire(message))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"boxes": [0] * 3, "scores": [0.5], "classes": [1]}, "3 coordinates, 1 scores"),
        ({"boxes": [0] * 4, "scores": [0.5], "classes": []}, "0 classes"),
        ({"boxes": [NAN] * 4, "scores": [0.5], "classes": [1]}, "coordinate"),
        ({"boxes": [0] * 4, "scores": [NAN], "classes": [1]}, "score"),
        ({"boxes": [0] * 4, "scores": [1.5], "classes": [1]}, "score"),
        ({"boxes": [0] * 4, "scores": [0.5], "classes": [2**31]}, "class 2147483648"),
    ],
)
def test_detections_that_make_no_sense_are_refused(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        detections_from_wire(wire(pb.Detections(**parts)))


def test_detections_come_highest_score_first() -> None:
    message = pb.Detections(boxes=[0] * 8, scores=[0.25, 0.75], classes=[1, 2])
    assert detections_from_wire(message).classes.tolist() == [2, 1]


@pytest.mark.parametrize(
    "message",
    [
        pb.ServerMessage(result=pb.Result(id=1, next_px=128)),
        pb.ServerMessage(result=pb.Result(id=1, outcome=pb.OUTCOME_OK)),
        pb.ServerMessage(result=pb.Result(id=1, outcome=pb.OUTCOME_OK, next_px=8, server_ms=INF)),
        pb.ServerMessage(ack=pb.Ack(id=1, server_ms=-1)),
    ],
)
def test_events_that_make_no_sense_are_refused(message: Any) -> None:
    with pytest.raises(ProtocolError):
        event_from_wire(wire(message))


def test_registrations_survive_the_wire_and_are_checked() -> None:
    sent = Registration("token", 128, (128, 256), (3000.0, 9000.0), 0.5)
    message = registration_to_wire(sent)
    assert registration_from_wire(wire(message)) == sent
    for field, value in [("token", ""), ("first_px", 300), ("heartbeat_s", 0.0)]:
        broken = wire(message)
        setattr(broken, field, value)
        with pytest.raises(ProtocolError, match=field.split("_")[0]):
            registration_from_wire(broken)
    for field in ("input_px", "frame_bytes"):
        broken = wire(message)
        getattr(broken, field).append(0)
        with pytest.raises(ProtocolError, match=field):
            registration_from_wire(broken)


def test_a_message_of_a_kind_that_is_not_known_yet_says_that_the_server_is_alive() -> None:
    message = pb.ServerMessage.FromString(b"\xa2\x06\x03new")  # field 100, of a server to come
    assert message.WhichOneof("kind") is None
    assert event_from_wire(message) == Heartbeat()


def test_detections_survive_a_pickle() -> None:
    for n in (0, 3):
        sent = Detections(
            boxes=np.arange(4 * n, dtype=np.float64).reshape(n, 4),  # type: ignore[arg-type]
            scores=np.full(n, 0.5, np.float32),
            classes=np.arange(n, dtype=np.int32),
        )
        got = pickle.loads(pickle.dumps(sent, protocol=5))
        for name in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(got, name), getattr(sent, name))
        assert [a.dtype for a in (got.boxes, got.scores, got.classes)] == ["f4", "f4", "i4"]
        assert got.sensible


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("boxes", value) for value in (INF, -INF, NAN)),
        *(("scores", value) for value in (NAN, -0.1, 1.1)),
        ("classes", -1),
    ],
)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_numbers_that_cannot_be_are_not_sensible(field: str, value: float, row: int) -> None:
    found = Detections(
        np.full((3, 4), 3e38, np.float32), np.full(3, 0.5, np.float32), np.zeros(3, np.int32)
    )
    assert found.sensible
    getattr(found, field)[row] = value
    assert not found.sensible
