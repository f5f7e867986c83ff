"""What one DNN finds in every frame of a clip, on disk: one compact file, the same bytes each time.

An .npz of plain arrays: `offsets` (F + 1,) says which rows of `boxes` (N, 4), `scores` (N,) and
`classes` (N,) belong to which frame; `frame_bytes` (F,) is the size of each frame's JPEG at the
DNN's input size; `size` (2,) is the clip's width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from jellyfish.detections import Detections
from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file

_DTYPES = {
    "offsets": np.int64,
    "boxes": np.float32,
    "scores": np.float32,
    "classes": np.int32,
    "frame_bytes": np.int64,
    "size": np.int64,
}


@dataclass(frozen=True, eq=False)
class ClipDetections:
    """The answers of one DNN to the F frames of a clip.

    Args:
        frames: (F,) what was found in each frame.
        frame_bytes: (F,) int64, bytes of each frame's JPEG at the DNN's input size.
        width, height: of the clip, in pixels.
    """

    frames: tuple[Detections, ...]
    frame_bytes: NDArray[np.int64]
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.frame_bytes.shape != (len(self.frames),):
            raise ValueError(
                f"{len(self.frames)} frames, frame_bytes {self.frame_bytes.shape}: want (F,)"
            )

    def __len__(self) -> int:
        return len(self.frames)


def write_clip_detections(path: Path, found: ClipDetections) -> None:
    """Write `found` to `path`, whole; equal values give equal bytes."""
    frames = found.frames or (Detections.none(),)
    arrays = {
        "offsets": np.cumsum([0, *(len(frame) for frame in found.frames)]),
        "boxes": np.concatenate([frame.boxes for frame in frames]),
        "scores": np.concatenate([frame.scores for frame in frames]),
        "classes": np.concatenate([frame.classes for frame in frames]),
        "frame_bytes": found.frame_bytes,
        "size": np.array([found.width, found.height]),
    }
    typed = {name: arrays[name].astype(dtype) for name, dtype in _DTYPES.items()}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **typed)


def read_clip_detections(path: Path) -> ClipDetections:
    """Return the detections in `path`.

    Raises:
        DataError: the file is missing, or holds no whole set of them; the text names it.
    """
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in _DTYPES}
        return _unpacked(arrays)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} holds no detections of a clip ({error}); remove it and run again"
        ) from error


def _unpacked(arrays: dict[str, NDArray[np.generic]]) -> ClipDetections:
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype:
            raise ValueError(f"{name} is {arrays[name].dtype}, not {np.dtype(dtype)}")
    offsets = arrays["offsets"].astype(np.int64)
    rows = {name: arrays[name] for name in ("boxes", "scores", "classes")}
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("offsets do not ascend from 0")
    if any(len(array) != offsets[-1] for array in rows.values()):
        raise ValueError("the number of boxes, scores or classes is not that of the offsets")
    bounds = offsets.tolist()
    frames = tuple(
        Detections(**{name: array[start:end] for name, array in rows.items()})  # type: ignore[arg-type]
        for start, end in pairwise(bounds)
    )
    width, height = arrays["size"].tolist()
    return ClipDetections(frames, arrays["frame_bytes"].astype(np.int64), width, height)
