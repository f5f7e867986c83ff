"""The frames of a clip as a client sends them: decoded, resized, encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from client.source import Image, encode
from jellyfish.errors import DataError


def images(clip: Path) -> Iterator[Image]:
    """Yield every frame of `clip`, (height, width, 3).

    Raises:
        DataError: it is missing, cannot be decoded, or ends before its frames are read.
    """
    if not clip.is_file():
        raise DataError(f"{clip} is missing")
    video = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if not video.isOpened() or frames < 1:
            raise DataError(f"{clip} cannot be decoded as a video")
        for number in range(frames):
            decoded, image = video.read()
            if not decoded:
                raise DataError(f"{clip} cannot be decoded at frame {number} of {frames}")
            yield np.asarray(image, np.uint8)
    finally:
        video.release()


def jpegs(clip: Path, px: int) -> list[bytes]:
    """Return every frame of `clip` as a client sends it at `px`.

    Raises:
        DataError: as `images`.
    """
    return [encode(image, px) for image in images(clip)]
