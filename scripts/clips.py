"""Clips: stretches of a video, cut frame for frame, so that every run sees the same pixels.

They are stored as plain RGBA in an AVI file. That is large, 1.8 MB a frame of 768 x 576, but takes
next to nothing to decode: no more should playing a file cost a client than a camera would.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from experiment.paths import clip_path
from jellyfish.errors import DataError
from jellyfish.files.atomic import whole_file
from scripts.data import read_assets

Frame = NDArray[np.uint8]


def main(config: Mapping[str, Any], name: str, root: Path, results: Path) -> Path:
    """Cut the clip that the config calls `name`; return its path.

    Raises:
        DataError: as `cut`.
    """
    clip = config["clips"][name]
    asset = read_assets(root / config["assets"])[clip["asset"]]
    path = clip_path(config, name, results)
    cut(results / "data" / asset.file, int(clip["first"]), int(clip["frames"]), path)
    return path


def cut(video: Path, first: int, frames: int, clip: Path) -> None:
    """Copy `frames` frames of `video`, from number `first` (0 is the first), to `clip`, whole.

    Raises:
        DataError: the video is missing, cannot be decoded or is too short, or the clip does not
            read back as the same frames (a full disk, say); the text names the file.
    """
    with whole_file(clip) as temporary:
        written = _copy(video, first, frames, temporary)
        if not _reads_back(temporary, written):
            raise DataError(
                f"{clip}: what was written does not read back as the same {frames} frames; "
                "is the disk full?"
            )


def _copy(video: Path, first: int, frames: int, clip: Path) -> list[int]:
    checksums = []
    with _opened(video) as source:
        for number in range(first):  # seeking would land on a key frame
            if not source.grab():
                raise DataError(_too_short(video, number, first, frames))
        rate = source.get(cv2.CAP_PROP_FPS)
        size = tuple(
            int(source.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        code = cv2.VideoWriter.fourcc(*"RGBA")  # HuffYUV takes eight times as long to decode
        sink = cv2.VideoWriter(str(clip), cv2.CAP_FFMPEG, code, rate if rate > 0 else 25.0, size)
        try:
            for number in range(first, first + frames):
                ok, frame = source.read()
                if not ok:
                    raise DataError(_too_short(video, number, first, frames))
                sink.write(frame)
                checksums.append(_checksum(frame))
        finally:
            sink.release()
    return checksums


def _reads_back(clip: Path, written: list[int]) -> bool:
    """Tell whether `clip` holds the frames with these checksums: OpenCV reports no failed write."""
    try:
        with _opened(clip) as source:
            return [_checksum(frame) for frame in _frames(source)] == written
    except DataError:
        return False


def _checksum(frame: Frame) -> int:
    return zlib.crc32(frame.tobytes())


def _frames(source: cv2.VideoCapture) -> Iterator[Frame]:
    ok, frame = source.read()
    while ok:
        yield frame
        ok, frame = source.read()


@contextmanager
def _opened(video: Path) -> Iterator[cv2.VideoCapture]:
    if not video.is_file():
        raise DataError(f"{video} is missing")
    source = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        if not source.isOpened():
            raise DataError(f"{video} cannot be decoded as a video; get or make it anew")
        yield source
    finally:
        source.release()


def _too_short(video: Path, ended: int, first: int, frames: int) -> str:
    return (
        f"{video} ends, or cannot be decoded, at frame {ended}; "
        f"the clip needs frames {first} to {first + frames - 1}"
    )
