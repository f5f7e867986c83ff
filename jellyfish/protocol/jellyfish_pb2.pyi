from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_OK: _ClassVar[Outcome]
    OUTCOME_DROPPED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
    OUTCOME_ERROR: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_OK: Outcome
OUTCOME_DROPPED: Outcome
OUTCOME_REJECTED: Outcome
OUTCOME_ERROR: Outcome

class RegisterRequest(_message.Message):
    __slots__ = ("name", "fps", "slo_ms", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    SLO_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    fps: float
    slo_ms: float
    version: int
    def __init__(self, name: _Optional[str] = ..., fps: _Optional[float] = ..., slo_ms: _Optional[float] = ..., version: _Optional[int] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("token", "first_px", "input_px", "frame_bytes", "heartbeat_s")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FIRST_PX_FIELD_NUMBER: _ClassVar[int]
    INPUT_PX_FIELD_NUMBER: _ClassVar[int]
    FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    token: str
    first_px: int
    input_px: _containers.RepeatedScalarFieldContainer[int]
    frame_bytes: _containers.RepeatedScalarFieldContainer[float]
    heartbeat_s: float
    def __init__(self, token: _Optional[str] = ..., first_px: _Optional[int] = ..., input_px: _Optional[_Iterable[int]] = ..., frame_bytes: _Optional[_Iterable[float]] = ..., heartbeat_s: _Optional[float] = ...) -> None: ...

class UnregisterRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class UnregisterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Frame(_message.Message):
    __slots__ = ("id", "tag", "image", "px", "bandwidth_kbps", "device_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PX_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_KBPS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MS_FIELD_NUMBER: _ClassVar[int]
    id: int
    tag: bytes
    image: bytes
    px: int
    bandwidth_kbps: float
    device_ms: float
    def __init__(self, id: _Optional[int] = ..., tag: _Optional[bytes] = ..., image: _Optional[bytes] = ..., px: _Optional[int] = ..., bandwidth_kbps: _Optional[float] = ..., device_ms: _Optional[float] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("ack", "result", "heartbeat")
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    ack: Ack
    result: Result
    heartbeat: Heartbeat
    def __init__(self, ack: _Optional[_Union[Ack, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Ack(_message.Message):
    __slots__ = ("id", "server_ms")
    ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_MS_FIELD_NUMBER: _ClassVar[int]
    id: int
    server_ms: float
    def __init__(self, id: _Optional[int] = ..., server_ms: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("id", "outcome", "reason", "next_px", "dnn_px", "gpu", "batch", "server_ms", "stages", "detections")
    ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NEXT_PX_FIELD_NUMBER: _ClassVar[int]
    DNN_PX_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    SERVER_MS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    id: int
    outcome: Outcome
    reason: str
    next_px: int
    dnn_px: int
    gpu: int
    batch: int
    server_ms: float
    stages: Stages
    detections: Detections
    def __init__(self, id: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., next_px: _Optional[int] = ..., dnn_px: _Optional[int] = ..., gpu: _Optional[int] = ..., batch: _Optional[int] = ..., server_ms: _Optional[float] = ..., stages: _Optional[_Union[Stages, _Mapping]] = ..., detections: _Optional[_Union[Detections, _Mapping]] = ...) -> None: ...

class Stages(_message.Message):
    __slots__ = ("dispatch_ms", "decode_ms", "wait_ms", "execute_ms")
    DISPATCH_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_MS_FIELD_NUMBER: _ClassVar[int]
    dispatch_ms: float
    decode_ms: float
    wait_ms: float
    execute_ms: float
    def __init__(self, dispatch_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., wait_ms: _Optional[float] = ..., execute_ms: _Optional[float] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("boxes", "scores", "classes")
    BOXES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedScalarFieldContainer[float]
    scores: _containers.RepeatedScalarFieldContainer[float]
    classes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, boxes: _Optional[_Iterable[float]] = ..., scores: _Optional[_Iterable[float]] = ..., classes: _Optional[_Iterable[int]] = ...) -> None: ...
